package state

// Part is what a member holds of a consensus log.
type Part string

// The parts.
const (
	// PartNone is a worker's: nothing.
	PartNone Part = "none"
	// PartFresh is a log that is empty still: its member may be taken in.
	PartFresh Part = "fresh"
	// PartUsed is a log with content. A member that has one and is not in the consensus
	// was left out of it, and must drop the log before it is taken in again.
	PartUsed Part = "used"
)

// Parts are what a member holds of both logs.
type Parts struct {
	Coord, Database Part
	// CoordVoters and DatabaseVoters are the IDs of who votes, as the logs there say;
	// none for a log that the member does not have.
	CoordVoters, DatabaseVoters []string
}

// Log names one of the two consensus logs.
type Log string

// The logs.
const (
	LogCoord    Log = "coord"
	LogDatabase Log = "database"
)
