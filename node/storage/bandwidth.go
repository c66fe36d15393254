package storage

import (
	"context"
	"io"

	"golang.org/x/time/rate"

	"muster/state"
)

// limited is w at the pool's "rsync.bwlimit" in bytes a second, or w itself when there is
// none. The key has its name from the program by which LXD sends volumes.
func (p *Pool) limited(ctx context.Context, w io.Writer) (io.Writer, error) {
	value := p.setting("rsync.bwlimit")
	if value == "" {
		return w, nil
	}
	limit, err := state.ParseSize(value)
	if err != nil || limit == 0 {
		return w, err
	}
	// A burst of a tenth of a second is not felt by anybody else.
	return &limitedWriter{ctx: ctx, w: w, limiter: rate.NewLimiter(rate.Limit(limit), int(max(limit/10, 1)))}, nil
}

type limitedWriter struct {
	ctx     context.Context //nolint:containedctx // of the one call that writes
	w       io.Writer
	limiter *rate.Limiter
}

func (l *limitedWriter) Write(data []byte) (written int, err error) {
	for len(data) > 0 {
		part := data[:min(len(data), l.limiter.Burst())]
		if err := l.limiter.WaitN(l.ctx, len(part)); err != nil {
			return written, err
		}
		n, err := l.w.Write(part)
		written += n
		if err != nil {
			return written, err
		}
		data = data[len(part):]
	}
	return written, nil
}
