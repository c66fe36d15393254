package cluster

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// forAll runs f for every name, a few at a time, and joins what went wrong, each
// error with its name before it.
func forAll(ctx context.Context, names []string, f func(ctx context.Context, name string) error) error {
	const atOnce = 8
	failures := make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, name := range names {
		group.Go(func() error {
			if err := f(ctx, name); err != nil {
				failures[i] = fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(failures...)
}
