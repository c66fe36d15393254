package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// freezer returns the files of the group's freezer: the one to write and the one
// to read, with what each says of a frozen and a thawed group.
func (g Group) freezer() (write, read, frozen, thawed string, err error) {
	if h, ok := g.host.find("freezer"); ok && !h.V2 {
		file := filepath.Join(g.dir(h), "freezer.state")
		return file, file, "FROZEN", "THAWED", nil
	}
	// In version 2 freezing is not a controller: every group has it.
	if h, ok := g.unified(); ok {
		return filepath.Join(g.dir(h), "cgroup.freeze"), filepath.Join(g.dir(h), "cgroup.events"), "frozen 1", "frozen 0", nil
	}
	return "", "", "", "", fmt.Errorf("this machine's kernel has no freezer: %w", os.ErrNotExist)
}

// Frozen says whether every process of the group is frozen.
func (g Group) Frozen() (bool, error) {
	_, read, frozen, _, err := g.freezer()
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(read)
	if err != nil {
		return false, err
	}
	return strings.Contains(string(text), frozen), nil
}

// Freeze freezes the group, or thaws it, and waits until that is so.
func (g Group) Freeze(ctx context.Context, freeze bool) error {
	write, read, frozen, thawed, err := g.freezer()
	if err != nil {
		return err
	}
	want := thawed
	if freeze {
		want = frozen
	}
	value := want
	if read != write {
		value = "0"
		if freeze {
			value = "1"
		}
	}
	for {
		// Version 1 wants to be told again while it is still at it.
		if err := writeFile(write, value); err != nil {
			return err
		}
		text, err := os.ReadFile(read)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}
