package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

func (a *app) networkCommand() *cobra.Command {
	cmd := family("network", "Manage networks", `  muster network create lab ipv4.address=10.99.0.1/24 ipv6.address=none
  muster network attach lab web eth1
  muster network list-leases lab`,
		a.networkListCommand(), a.networkCreateCommand(), a.networkLeasesCommand(),
		a.simple(networkNoun, "show", "Show a network as YAML", func(ctx context.Context, t thing) error {
			network, _, err := t.Network(ctx, t.name)
			if err != nil {
				return err
			}
			return a.yaml(network)
		}),
		a.simple(networkNoun, "info", "Show a network's interface on the host", func(ctx context.Context, t thing) error {
			state, err := t.NetworkState(ctx, t.name)
			if err == nil {
				printNetwork(a.stdout, t.name, state)
			}
			return err
		}),
		a.simple(networkNoun, "delete", "Delete a network", func(ctx context.Context, t thing) error {
			err := t.DeleteNetwork(ctx, t.name)
			if err == nil {
				a.say("Network %s deleted", t.name)
			}
			return err
		}),
		a.simple(networkNoun, "edit", "Edit a network as YAML", func(ctx context.Context, t thing) error {
			network, etag, err := t.Network(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, network, func(changed api.Network) error {
				return t.UpdateNetwork(ctx, t.name, changed.NetworkPut, etag)
			})
		}),
		a.renaming(networkNoun, func(ctx context.Context, t thing, name string) error { return t.RenameNetwork(ctx, t.name, name) }))
	cmd.AddCommand(a.networkAttachCommands()...)
	cmd.AddCommand(a.keyCommands(keyed{
		noun: networkNoun, key: "ipv4.nat", value: "false",
		read: func(ctx context.Context, t thing) (map[string]string, error) {
			network, _, err := t.Network(ctx, t.name)
			return network.Config, err
		},
		change: func(ctx context.Context, t thing, changes map[string]string) error {
			return t.ChangeNetwork(ctx, t.name, func(put *api.NetworkPut) error {
				put.Config = apply(put.Config, changes)
				return nil
			})
		},
	})...)
	return cmd
}

func (a *app) networkListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List networks", Example: "  muster network list",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			networks, err := t.Networks(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"}, Values: networks}
			for _, n := range networks {
				d.Rows = append(d.Rows, []string{
					n.Name, n.Type, yesNo(n.Managed), n.Config["ipv4.address"], n.Config["ipv6.address"],
					n.Description, strconv.Itoa(len(n.UsedBy)), strings.ToUpper(n.Status),
				})
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) networkCreateCommand() *cobra.Command {
	var kind, description, target string
	cmd := &cobra.Command{
		Use:   "create [REMOTE:]NETWORK [KEY=VALUE...]",
		Short: "Create a network",
		Long:  "Create a network. Its configuration in YAML may be given on standard input; arguments come on top of it.",
		Example: `  muster network create lab
  muster network create lab ipv4.address=10.99.0.1/24 ipv4.nat=true ipv6.address=none`,
		Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			t = t.aimed(target)
			var from api.Network
			text, err := a.optionalInput("the network")
			if err != nil {
				return err
			}
			if err := yamldoc.Unmarshal(text, &from); err != nil {
				return err
			}
			config, err := a.pairs(args[1:])
			if err != nil {
				return err
			}
			post := api.NetworksPost{Name: t.name, Type: kind, NetworkPut: from.NetworkPut}
			post.Config = apply(post.Config, config)
			if description != "" {
				post.Description = description
			}
			if err := t.CreateNetwork(cmd.Context(), post); err != nil {
				return err
			}
			if target != "" {
				a.say("Network %s pending on member %s", t.name, target)
				return nil
			}
			a.say("Network %s created", t.name)
			return nil
		},
	}
	cmd.Flags().StringVarP(&kind, "type", "t", "bridge", "kind of network")
	cmd.Flags().StringVar(&description, "description", "", "what the network is for")
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) networkLeasesCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list-leases [REMOTE:]NETWORK", Short: "List the addresses that a network has given out", Example: "  muster network list-leases lab",
		Args: between(1, 1), ValidArgsFunction: a.complete(networkNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			leases, err := t.NetworkLeases(cmd.Context(), t.name)
			if err != nil {
				return err
			}
			located, err := t.clustered(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"}, Values: leases}
			if located {
				d.Header = append(d.Header, "LOCATION")
			}
			for _, lease := range leases {
				row := []string{lease.Hostname, lease.Hwaddr, lease.Address, strings.ToUpper(lease.Type)}
				if located {
					row = append(row, lease.Location)
				}
				d.Rows = append(d.Rows, row)
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func printNetwork(w io.Writer, name string, s api.NetworkState) {
	fmt.Fprintf(w, "Name: %s\nMAC address: %s\nMTU: %d\nState: %s\nType: %s\n", name, s.Hwaddr, s.Mtu, s.State, s.Type)
	if len(s.Addresses) > 0 {
		fmt.Fprintln(w, "\nIP addresses:")
		for _, address := range s.Addresses {
			fmt.Fprintf(w, "  %s\t%s/%s (%s)\n", address.Family, address.Address, address.Netmask, address.Scope)
		}
	}
	fmt.Fprintf(w, "\nNetwork usage:\n  Bytes received: %s\n  Bytes sent: %s\n  Packets received: %d\n  Packets sent: %d\n",
		sizeDecimal(s.Counters.BytesReceived), sizeDecimal(s.Counters.BytesSent), s.Counters.PacketsReceived, s.Counters.PacketsSent)
	if b := s.Bridge; b != nil {
		fmt.Fprintf(w, "\nBridge:\n  ID: %s\n  STP: %v\n  Forward delay: %d\n  Default VLAN ID: %d\n  VLAN filtering: %v\n  Upper devices: %s\n",
			b.ID, b.STP, b.ForwardDelay, b.VLANDefault, b.VLANFiltering, strings.Join(b.UpperDevices, ", "))
	}
}
