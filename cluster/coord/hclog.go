package coord

import (
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hclogTo returns a logger for HashiCorp's libraries that writes to log. They
// call much of what is ordinary here a warning or an information (a lone
// voter's election at every start), so each level goes one step down.
func hclogTo(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	logger.RegisterSink(sink{log})
	return logger
}

type sink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(name string, level hclog.Level, message string, args ...any) {
	attrs := append([]any{"library", name, "message", message}, args...)
	switch {
	case level >= hclog.Error:
		s.log.Warn("consensus library reports", attrs...)
	case level == hclog.Warn:
		s.log.Info("consensus library reports", attrs...)
	default:
		s.log.Debug("consensus library reports", attrs...)
	}
}
