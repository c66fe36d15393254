package api

import "time"

// WarningPut is what a client may replace of a warning.
type WarningPut struct {
	// Status is "new" or "acknowledged".
	Status string `json:"status"`
}

// Warning is something an operator should look at.
type Warning struct {
	WarningPut
	UUID     string `json:"uuid"`
	Location string `json:"location"`
	Project  string `json:"project"`
	Type     string `json:"type"`
	// Count is how often it happened.
	Count       int       `json:"count"`
	FirstSeenAt time.Time `json:"first_seen_at"`
	LastSeenAt  time.Time `json:"last_seen_at"`
	LastMessage string    `json:"last_message"`
	// Severity is "low", "moderate" or "high".
	Severity string `json:"severity"`
	// EntityURL is what the warning is about, or empty.
	EntityURL string `json:"entity_url"`
}
