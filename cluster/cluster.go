// Package cluster is what an operation means for the whole: it decides where
// things go, records what should be in the state plane, and asks the node that
// hosts a thing to make it so.
//
// It never touches a host itself and speaks no wire: node does the one, rpc the
// other.
package cluster
