package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// progress draws how far a piece of work is, on standard error and only when
// that is a terminal. Nothing is drawn before there is something to say, so quick
// work leaves no trace.
type progress struct {
	title  string
	shown  bool
	drawer *mpb.Progress
	bar    *mpb.Bar

	mu   sync.Mutex // guards text
	text string
}

func (a *app) progress(title string) *progress {
	p := &progress{title: title, shown: !a.quiet && !a.debug && terminal(a.stderr)}
	if p.shown {
		p.drawer = mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
	}
	return p
}

// operation shows what an operation says of itself.
func (p *progress) operation(op api.Operation) {
	if at, ok := client.ProgressOf(op); ok {
		p.show(at.Text, at.Percent)
	}
}

// step shows what is being done now, of work whose length is not known.
func (p *progress) step(text string) { p.show(text, -1) }

// show shows a text and how much is done; a percentage below zero is unknown.
func (p *progress) show(text string, percent int) {
	if !p.shown || (text == "" && percent < 0) {
		return
	}
	p.mu.Lock()
	p.text = text
	p.mu.Unlock()
	if p.bar == nil {
		// Without a percentage there is no bar to fill, only signs of life.
		style := mpb.BarFillerBuilder(mpb.BarStyle())
		if percent < 0 {
			style = mpb.SpinnerStyle().PositionLeft()
		}
		p.bar = p.drawer.New(100, style,
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(p.title+" ")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
				p.mu.Lock()
				defer p.mu.Unlock()
				return " " + p.text
			})),
		)
	}
	if percent >= 0 {
		p.bar.SetCurrent(int64(min(percent, 99)))
	}
}

// bytes shows how many of total bytes have gone; total may be 0 for unknown.
func (p *progress) bytes(total int64) func(int64) {
	if !p.shown {
		return nil
	}
	p.bar = p.drawer.AddBar(total,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(p.title+" ")),
		mpb.AppendDecorators(
			decor.Counters(decor.SizeB1000(0), " % .1f / % .1f"),
			decor.AverageSpeed(decor.SizeB1000(0), "  % .1f"),
		),
	)
	return p.bar.SetCurrent
}

// close wipes the bar.
func (p *progress) close() {
	if !p.shown {
		return
	}
	if p.bar != nil {
		p.bar.Abort(true)
	}
	p.drawer.Wait()
}

// errInterrupted goes with what was left behind when the user pressed ctrl-c.
var errInterrupted = errors.New("interrupted")

// abandonTimeout bounds the last request after an interrupt.
const abandonTimeout = 5 * time.Second

// abandon gives up an operation whose user does not want to wait any longer:
// it is cancelled if it can be, and named if it goes on.
func (a *app) abandon(ctx context.Context, op *client.Operation) error {
	// The user's patience is what ended; this last word has to get through.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	if op.MayCancel {
		if err := op.Cancel(ctx); err == nil {
			return fmt.Errorf("%w: operation %s (%s) is cancelled", errInterrupted, op.ID, op.Description)
		}
	}
	return fmt.Errorf("%w: operation %s (%s) goes on in the background; see `muster operation show %s`", errInterrupted, op.ID, op.Description, op.ID)
}
