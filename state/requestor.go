package state

// Requestor is who asked for a change or began an operation, as lifecycle events show it.
// The fields have no JSON names of their own: logs that exist were written without.
type Requestor struct {
	// Username is the name of a local user, or the fingerprint of a client certificate.
	Username string `json:",omitempty"`
	// Protocol is "unix", "tls" or the like.
	Protocol string `json:",omitempty"`
	Address  string `json:",omitempty"`
	// Member is the name of the member that answers the requestor; empty where an older
	// release wrote it.
	Member string `json:",omitempty"`
}

// Fingerprint is that of the client certificate of a requestor from the network, and
// empty for all others.
func (r *Requestor) Fingerprint() string {
	if r == nil || r.Protocol != "tls" {
		return ""
	}
	return r.Username
}
