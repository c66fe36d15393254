// Package peerpb is generated from peer.proto: the messages and services that
// members speak to each other.
//
// It holds nothing else; package peer is what uses it.
package peerpb
