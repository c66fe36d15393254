package storage_test

import "os"

// childEnv tells a copy of the test program to be the victim of a crash test.
const childEnv = "MUSTER_STORAGE_CHILD"

func child(string) { os.Exit(2) }
