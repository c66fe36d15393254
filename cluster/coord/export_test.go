package coord

// TakeSnapshot has the log take a snapshot now.
func (n *Node) TakeSnapshot() error { return n.seat.Load().raft.Snapshot().Error() }
