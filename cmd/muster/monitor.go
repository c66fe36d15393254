package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

// levels of log messages, the least important first.
var levels = []string{"trace", "debug", "info", "warning", "error", "fatal", "panic"}

func (a *app) monitorCommand() *cobra.Command {
	var types []string
	var allProjects, pretty bool
	var format, level string
	cmd := &cobra.Command{
		Use:   "monitor [REMOTE:]",
		Short: "Show events as they happen",
		Long: `Show events as they happen, until ctrl-c: operation (work in the background),
lifecycle (what happened to what) and logging (the daemon's log).`,
		Example: `  muster monitor
  muster monitor --type lifecycle --pretty
  muster monitor --type logging --loglevel warning --pretty
  muster monitor --format json | jq .metadata`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			if pretty {
				format = "pretty"
			}
			if !slices.Contains([]string{"json", "yaml", "pretty"}, format) {
				return usagef(cmd, "format %q is none of json, yaml, pretty", format)
			}
			least := slices.Index(levels, level)
			if level != "" && least < 0 {
				return usagef(cmd, "loglevel %q is none of %s", level, strings.Join(levels, ", "))
			}
			q := client.EventsQuery{Types: types, AllProjects: allProjects}
			err = t.Events(cmd.Context(), q, func(event api.Event) error { return a.showEvent(event, format, least) })
			// Ctrl-c is how one leaves.
			if errors.Is(err, context.Canceled) {
				err = nil
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&types, "type", nil, "operation, lifecycle or logging (default: all)")
	cmd.Flags().BoolVar(&allProjects, "all-projects", false, "events of all projects")
	cmd.Flags().StringVarP(&format, "format", "f", "yaml", "json, yaml or pretty")
	cmd.Flags().BoolVar(&pretty, "pretty", false, "short for --format pretty")
	cmd.Flags().StringVar(&level, "loglevel", "", "least important log message to show, such as info")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(
		[]string{api.EventTypeOperation, api.EventTypeLifecycle, api.EventTypeLogging}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) showEvent(event api.Event, format string, least int) error {
	var logged api.EventLogging
	if event.Type == api.EventTypeLogging {
		if err := json.Unmarshal(event.Metadata, &logged); err != nil {
			return fmt.Errorf("a logging event: %w", err)
		}
		if slices.Index(levels, logged.Level) < least {
			return nil
		}
	}
	var err error
	switch format {
	case "json":
		err = json.NewEncoder(a.stdout).Encode(event)
	case "yaml":
		var text []byte
		if text, err = yamldoc.Marshal(event); err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s\n\n", strings.TrimRight(string(text), "\n"))
		}
	default:
		err = a.prettyEvent(event, logged)
	}
	return err
}

func (a *app) prettyEvent(event api.Event, logged api.EventLogging) error {
	at := event.Timestamp.Local().Format("15:04:05.000")
	switch event.Type {
	case api.EventTypeLogging:
		var details []string
		for _, key := range keysOf(logged.Context) {
			details = append(details, key+"="+logged.Context[key])
		}
		_, err := fmt.Fprintf(a.stdout, "%s %-7s %s %s\n", at, strings.ToUpper(logged.Level), logged.Message, strings.Join(details, " "))
		return err
	case api.EventTypeLifecycle:
		var happened api.EventLifecycle
		err := json.Unmarshal(event.Metadata, &happened)
		_, printed := fmt.Fprintf(a.stdout, "%s EVENT   %s %s\n", at, happened.Action, happened.Source)
		return errors.Join(err, printed)
	case api.EventTypeOperation:
		var op api.Operation
		err := json.Unmarshal(event.Metadata, &op)
		line := fmt.Sprintf("%s %s: %s", op.ID, op.Description, op.Status)
		if op.Err != "" {
			line += ": " + op.Err
		}
		_, printed := fmt.Fprintf(a.stdout, "%s WORK    %s\n", at, line)
		return errors.Join(err, printed)
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s %s\n", at, strings.ToUpper(event.Type), event.Metadata)
	return err
}
