package shim

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lxc/go-lxc"
)

// check tries each line of a liblxc configuration and prints the first that
// liblxc refuses. Nothing is started and nothing is kept.
func check(config io.Reader) error {
	dir, err := os.MkdirTemp("", "muster-check-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	c, err := lxc.NewContainer("check", dir)
	if err != nil {
		return err
	}
	defer func() { _ = c.Release() }()
	lines := bufio.NewScanner(config)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !found {
			fmt.Printf("line %q is not of the form key = value\n", line)
			return nil
		}
		if err := c.SetConfigItem(key, value); err != nil {
			fmt.Printf("liblxc does not accept %q\n", line)
			return nil
		}
	}
	return lines.Err()
}
