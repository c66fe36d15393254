package coord

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hclogTo returns a logger for HashiCorp's libraries that writes to log. What
// they call a warning or an information is daily life (a lone voter's election
// at every start): it goes to debug, and the node itself logs who coordinates.
func hclogTo(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	logger.RegisterSink(sink{log})
	return logger
}

type sink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(name string, level hclog.Level, message string, args ...any) {
	attrs := []any{"library", name, "message", message}
	for _, arg := range args {
		if f, formatted := arg.(hclog.Format); formatted && len(f) > 0 {
			arg = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		attrs = append(attrs, arg)
	}
	if level >= hclog.Error {
		s.log.Warn("consensus library reports", attrs...)
		return
	}
	s.log.Debug("consensus library reports", attrs...)
}
