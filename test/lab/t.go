package lab

import "context"

// T is whom a lab works for: a test, or a program that shows something (test/demo).
type T interface {
	Helper()
	// Context ends before what was given to Cleanup runs.
	Context() context.Context
	// TempDir is a fresh directory that is removed at the end.
	TempDir() string
	// Cleanup has do called at the end, what was given last first.
	Cleanup(do func())

	Log(args ...any)
	Logf(format string, args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	// Fatal, Fatalf and Skip end the goroutine that called them.
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
	// Failed reports whether Error or Fatal was called.
	Failed() bool
}
