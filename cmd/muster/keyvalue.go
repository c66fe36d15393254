package main

import (
	"fmt"
	"io"
	"strings"
)

// pairs reads KEY=VALUE arguments; also a lone KEY VALUE pair, the older way.
// The value "-" is read from standard input.
func (a *app) pairs(args []string) (map[string]string, error) {
	if len(args) == 2 && !strings.Contains(args[0], "=") {
		args = []string{args[0] + "=" + args[1]}
	}
	all := map[string]string{}
	for _, arg := range args {
		key, value, found := strings.Cut(arg, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("%q is not of the form KEY=VALUE", arg)
		}
		if _, twice := all[key]; twice {
			return nil, fmt.Errorf("key %q is there twice", key)
		}
		if value == "-" {
			text, err := io.ReadAll(a.stdin)
			if err != nil {
				return nil, fmt.Errorf("read the value of %s: %w", key, err)
			}
			value = string(text)
		}
		all[key] = value
	}
	return all, nil
}

// apply sets keys, removing those whose value is empty, and returns the map,
// made if it was nil.
func apply(config, changes map[string]string) map[string]string {
	if config == nil {
		config = map[string]string{}
	}
	for key, value := range changes {
		if value == "" {
			delete(config, key)
		} else {
			config[key] = value
		}
	}
	return config
}

// deviceChanges reads DEVICE,KEY=VALUE[,KEY=VALUE…] arguments, as --device
// takes them.
func deviceChanges(args []string) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, arg := range args {
		device, rest, found := strings.Cut(arg, ",")
		if !found || device == "" {
			return nil, fmt.Errorf("device %q is not of the form DEVICE,KEY=VALUE", arg)
		}
		if all[device] == nil {
			all[device] = map[string]string{}
		}
		for pair := range strings.SplitSeq(rest, ",") {
			key, value, found := strings.Cut(pair, "=")
			if !found || key == "" {
				return nil, fmt.Errorf("device %s: %q is not of the form KEY=VALUE", device, pair)
			}
			all[device][key] = value
		}
	}
	return all, nil
}
