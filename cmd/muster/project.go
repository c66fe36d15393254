package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/rest/api"
)

func (a *app) projectCommand() *cobra.Command {
	cmd := family("project", "Manage projects", `  muster project create web -c features.images=false
  muster project switch web
  muster list`,
		a.projectListCommand(), a.projectCreateCommand(), a.projectSwitchCommand(),
		a.simple(projectNoun, "show", "Show a project as YAML", func(ctx context.Context, t thing) error {
			project, _, err := t.FindProject(ctx, t.name)
			if err != nil {
				return err
			}
			return a.yaml(project)
		}),
		a.simple(projectNoun, "info", "Show what a project uses of its limits", a.projectInfo),
		a.simple(projectNoun, "edit", "Edit a project as YAML", func(ctx context.Context, t thing) error {
			project, etag, err := t.FindProject(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, project, func(changed api.Project) error {
				return t.UpdateProject(ctx, t.name, changed.ProjectPut, etag)
			})
		}),
		a.simple(projectNoun, "delete", "Delete an empty project", func(ctx context.Context, t thing) error {
			err := t.DeleteProject(ctx, t.name)
			if err == nil {
				a.say("Project %s deleted", t.name)
			}
			return err
		}),
		a.renaming(projectNoun, func(ctx context.Context, t thing, name string) error { return t.RenameProject(ctx, t.name, name) }))
	cmd.AddCommand(a.keyCommands(keyed{
		noun: projectNoun, key: "limits.instances", value: "10",
		read: func(ctx context.Context, t thing) (map[string]string, error) {
			project, _, err := t.FindProject(ctx, t.name)
			return project.Config, err
		},
		change: func(ctx context.Context, t thing, changes map[string]string) error {
			return t.ChangeProject(ctx, t.name, func(put *api.ProjectPut) error {
				put.Config = apply(put.Config, changes)
				return nil
			})
		},
	})...)
	return cmd
}

func (a *app) projectListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List projects", Example: "  muster project list",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			projects, err := t.Projects(cmd.Context())
			if err != nil {
				return err
			}
			current := orElse(t.Project(), "default")
			d := table.Data{Header: []string{"NAME", "IMAGES", "PROFILES", "STORAGE VOLUMES", "NETWORKS", "DESCRIPTION", "USED BY"}, Values: projects}
			for _, p := range projects {
				name := p.Name
				if name == current {
					name += " (current)"
				}
				row := []string{name}
				for _, feature := range []string{"images", "profiles", "storage.volumes", "networks"} {
					row = append(row, yesNo(p.Config["features."+feature] == "true"))
				}
				d.Rows = append(d.Rows, append(row, p.Description, strconv.Itoa(len(p.UsedBy))))
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) projectCreateCommand() *cobra.Command {
	var config []string
	var description string
	cmd := &cobra.Command{
		Use: "create [REMOTE:]PROJECT", Short: "Create a project", Example: "  muster project create web -c features.profiles=false",
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "project")
			if err != nil {
				return err
			}
			pairs, err := a.pairs(config)
			if err != nil {
				return err
			}
			post := api.ProjectsPost{Name: t.name, ProjectPut: api.ProjectPut{Config: pairs, Description: description}}
			if err := t.CreateProject(cmd.Context(), post); err != nil {
				return err
			}
			a.say("Project %s created", t.name)
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&config, "config", "c", nil, "KEY=VALUE of the new project's configuration")
	cmd.Flags().StringVar(&description, "description", "", "what the project is for")
	return cmd
}

func (a *app) projectSwitchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "switch [REMOTE:]PROJECT", Short: "Use a project when none is named", Example: "  muster project switch web",
		Args: between(1, 1), ValidArgsFunction: a.complete(projectNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "project")
			if err != nil {
				return err
			}
			if _, _, err := t.FindProject(cmd.Context(), t.name); err != nil {
				return err
			}
			config, err := a.config()
			if err != nil {
				return err
			}
			r := config.Remotes[t.remote]
			r.Project = t.name
			config.Remotes[t.remote] = r
			return config.Save()
		},
	}
}

func (a *app) projectInfo(ctx context.Context, t thing) error {
	state, err := t.ProjectState(ctx, t.name)
	if err != nil {
		return err
	}
	d := table.Data{Header: []string{"RESOURCE", "LIMIT", "USAGE"}}
	for _, name := range keysOf(state.Resources) {
		resource := state.Resources[name]
		show := func(n int64) string {
			if name == "memory" || name == "disk" {
				return size(n)
			}
			return strconv.FormatInt(n, 10)
		}
		limit := "UNLIMITED"
		if resource.Limit >= 0 {
			limit = show(resource.Limit)
		}
		d.Rows = append(d.Rows, []string{strings.ToUpper(name), limit, show(resource.Usage)})
	}
	return a.render("table", d)
}
