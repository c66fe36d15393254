package api

// Placement answers POST /1.0/instances?dry-run: where the instance would be made, and
// what each member had to say to it.
type Placement struct {
	// Member is empty when there is no place; Error says why.
	Member  string             `json:"member"`
	Error   string             `json:"error,omitempty"`
	Members []PlacementVerdict `json:"members"`
}

// PlacementVerdict is what one member got.
type PlacementVerdict struct {
	Member string `json:"member"`
	// Filter and Reason are set for a member that was refused.
	Filter string `json:"filter,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Scores are the weighted scores by name, Total their sum.
	Scores map[string]float64 `json:"scores"`
	Total  float64            `json:"total"`
}
