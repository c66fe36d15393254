package storage

import (
	"cmp"
	"context"
	"strings"
	"time"
)

// measurement is a usage that took some time to find out.
type measurement struct {
	usage Usage
	valid time.Time // until then
}

// Where a quota counts, usage is one question to the kernel. Elsewhere every
// file is looked at, so that a list of all instances would cost seconds: what
// took long to measure is then used for longer. A fiftieth of one processor is
// what measuring one volume may cost, and half a minute how old it may be.
const (
	measuringShare = 50
	oldest         = 30 * time.Second
)

// Usage returns the space that the volume takes. Where no quota counts it, the
// answer may be up to half a minute old, in proportion to the time that
// measuring takes.
func (p *Pool) Usage(ctx context.Context, vol Volume) (Usage, error) {
	if err := cmp.Or(p.usable(), vol.check()); err != nil {
		return Usage{}, err
	}
	if err := p.need(vol); err != nil {
		return Usage{}, err
	}
	start := time.Now()
	p.mu.Lock()
	last, ok := p.measured[vol.key()]
	p.mu.Unlock()
	if ok && start.Before(last.valid) {
		return last.usage, nil
	}
	usage, err := p.drv.usage(ctx, p.content(vol))
	if err != nil {
		return Usage{}, p.fault(err, "measure %s", vol)
	}
	took := time.Since(start)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measured[vol.key()] = measurement{usage, start.Add(took + min(took*measuringShare, oldest))}
	return usage, nil
}

// forget drops what was measured of a volume and its snapshots: it was changed
// as a whole.
func (p *Pool) forget(vol Volume) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.measured {
		if strings.HasPrefix(key, vol.Live().key()) {
			delete(p.measured, key)
		}
	}
}
