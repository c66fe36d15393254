// Command muster-shim is the small helper between musterd and its containers; see
// package shim.
//
// It is never run by hand: it has no flags, no configuration and no help.
package main

import (
	"os"

	"muster/node/runtime/lxc/shim"
)

func main() { os.Exit(shim.Main(os.Args)) }
