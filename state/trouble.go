package state

// Trouble is what keeps a member from its part in the consensus. The zero value says that
// nothing does.
type Trouble struct {
	// Broken says that the member takes no part until that has changed; else it is short
	// of room only.
	Broken bool
	// Message is a sentence for operators.
	Message string
}
