package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

func (a *app) infoCommand() *cobra.Command {
	var showLog, resources bool
	var target string
	cmd := &cobra.Command{
		Use:   "info [REMOTE:][INSTANCE]",
		Short: "Show an instance, or the server",
		Example: `  muster info web
  muster info web --show-log
  muster info
  muster info --resources`,
		Args:              between(0, 1),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.on(strings.Join(args, ""))
			if err != nil {
				return err
			}
			t = t.aimed(target)
			switch {
			case t.name != "" && resources:
				return usagef(cmd, "--resources is about the server: leave the instance out")
			case t.name != "":
				return a.instanceInfo(cmd.Context(), t, showLog)
			case showLog:
				return usagef(cmd, "--show-log is about an instance: name one")
			case resources:
				return a.resourcesInfo(cmd.Context(), t)
			}
			server, _, err := t.Server(cmd.Context())
			if err != nil {
				return err
			}
			return a.yaml(server)
		},
	}
	cmd.Flags().BoolVar(&showLog, "show-log", false, "show the end of the instance's log too")
	cmd.Flags().BoolVar(&resources, "resources", false, "show the machine's hardware")
	a.targetFlag(cmd, &target)
	return cmd
}

// yaml prints a value as YAML.
func (a *app) yaml(value any) error {
	text, err := yamldoc.Marshal(value)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(text)
	return err
}

func (a *app) instanceInfo(ctx context.Context, t thing, showLog bool) error {
	instance, err := t.InstanceFull(ctx, t.name)
	if err != nil {
		return err
	}
	w := a.stdout
	fmt.Fprintf(w, "Name: %s\n", instance.Name)
	if instance.Description != "" {
		fmt.Fprintf(w, "Description: %s\n", instance.Description)
	}
	fmt.Fprintf(w, "Status: %s\n", strings.ToUpper(instance.Status))
	kind := string(instance.Type)
	if instance.Ephemeral {
		kind += " (ephemeral)"
	}
	fmt.Fprintf(w, "Type: %s\nArchitecture: %s\n", kind, instance.Architecture)
	if instance.Location != "" && instance.Location != "none" {
		fmt.Fprintf(w, "Location: %s\n", instance.Location)
	}
	if instance.State != nil && instance.State.Pid > 0 {
		fmt.Fprintf(w, "PID: %d\n", instance.State.Pid)
	}
	for _, each := range []struct{ name, value string }{
		{"Created", moment(instance.CreatedAt)}, {"Last Used", moment(instance.LastUsedAt)},
	} {
		if each.value != "" {
			fmt.Fprintf(w, "%s: %s\n", each.name, each.value)
		}
	}
	if instance.State != nil && instance.State.Pid > 0 {
		printState(w, *instance.State)
	}
	if len(instance.Snapshots) > 0 {
		fmt.Fprintln(w, "\nSnapshots:")
		if err := a.render("table", snapshotTable(instance.Snapshots)); err != nil {
			return err
		}
	}
	if showLog {
		return a.printLog(ctx, t.Client, instance.Name)
	}
	return nil
}

func printState(w io.Writer, s api.InstanceState) {
	fmt.Fprintf(w, "\nResources:\n  Processes: %d\n", s.Processes)
	if len(s.Disk) > 0 {
		fmt.Fprintln(w, "  Disk usage:")
		for _, name := range slices.Sorted(maps.Keys(s.Disk)) {
			fmt.Fprintf(w, "    %s: %s\n", name, size(s.Disk[name].Usage))
		}
	}
	fmt.Fprintf(w, "  CPU usage:\n    CPU usage (in seconds): %d\n", s.CPU.Usage/1e9)
	fmt.Fprintf(w, "  Memory usage:\n    Memory (current): %s\n", size(s.Memory.Usage))
	for _, each := range []struct {
		name  string
		value int64
	}{{"Memory (peak)", s.Memory.UsagePeak}, {"Swap (current)", s.Memory.SwapUsage}, {"Swap (peak)", s.Memory.SwapUsagePeak}} {
		if each.value > 0 {
			fmt.Fprintf(w, "    %s: %s\n", each.name, size(each.value))
		}
	}
	if len(s.Network) == 0 {
		return
	}
	fmt.Fprintln(w, "  Network usage:")
	for _, name := range slices.Sorted(maps.Keys(s.Network)) {
		printInterface(w, name, s.Network[name])
	}
}

func printInterface(w io.Writer, name string, n api.InstanceStateNetwork) {
	fmt.Fprintf(w, "    %s:\n      Type: %s\n      State: %s\n", name, n.Type, strings.ToUpper(n.State))
	if n.HostName != "" {
		fmt.Fprintf(w, "      Host interface: %s\n", n.HostName)
	}
	if n.Hwaddr != "" {
		fmt.Fprintf(w, "      MAC address: %s\n", n.Hwaddr)
	}
	fmt.Fprintf(w, "      MTU: %d\n", n.Mtu)
	fmt.Fprintf(w, "      Bytes received: %s\n      Bytes sent: %s\n", sizeDecimal(n.Counters.BytesReceived), sizeDecimal(n.Counters.BytesSent))
	fmt.Fprintf(w, "      Packets received: %d\n      Packets sent: %d\n", n.Counters.PacketsReceived, n.Counters.PacketsSent)
	if len(n.Addresses) == 0 {
		return
	}
	fmt.Fprintln(w, "      IP addresses:")
	for _, address := range n.Addresses {
		fmt.Fprintf(w, "        %-6s %s/%s (%s)\n", address.Family+":", address.Address, address.Netmask, address.Scope)
	}
}

func snapshotTable(snapshots []api.InstanceSnapshot) table.Data {
	d := table.Data{Header: []string{"NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"}, Values: snapshots}
	for _, s := range snapshots {
		d.Rows = append(d.Rows, []string{s.Name, moment(s.CreatedAt), moment(s.ExpiresAt), yesNo(s.Stateful)})
	}
	return d
}

// printLog shows the runtime's log of an instance.
func (a *app) printLog(ctx context.Context, c *client.Client, instance string) error {
	text, err := c.Log(ctx, instance, "lxc.log")
	if client.IsNotFound(err) {
		a.say("\nThe instance has no log yet.")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	const most = 100
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	fmt.Fprintf(a.stdout, "\nLog:\n\n%s\n", strings.Join(lines, "\n"))
	return nil
}

func (a *app) resourcesInfo(ctx context.Context, t thing) error {
	r, err := t.Resources(ctx)
	if err != nil {
		return err
	}
	w := a.stdout
	fmt.Fprintf(w, "CPU (%s):\n", r.CPU.Architecture)
	for _, socket := range r.CPU.Sockets {
		threads := 0
		for _, core := range socket.Cores {
			threads += len(core.Threads)
		}
		fmt.Fprintf(w, "  Socket %d: %s\n    Cores: %d\n    Threads: %d\n", socket.Socket, socket.Name, len(socket.Cores), threads)
		for _, cache := range socket.Cache {
			fmt.Fprintf(w, "    Cache level %d (%s): %s\n", cache.Level, cache.Type, size(int64(cache.Size)))
		}
	}
	fmt.Fprintf(w, "\nMemory:\n  Free: %s\n  Used: %s\n  Total: %s\n",
		size(int64(r.Memory.Total-r.Memory.Used)), size(int64(r.Memory.Used)), size(int64(r.Memory.Total)))
	for _, card := range r.Network.Cards {
		for _, port := range card.Ports {
			fmt.Fprintf(w, "\nNIC %s:\n  Address: %s\n  Driver: %s\n  Link detected: %v\n", port.ID, port.Address, card.Driver, port.LinkDetected)
		}
	}
	for _, disk := range r.Storage.Disks {
		fmt.Fprintf(w, "\nDisk %s:\n  Device: %s\n", disk.ID, disk.Device)
		if disk.Model != "" {
			fmt.Fprintf(w, "  Model: %s\n", disk.Model)
		}
		fmt.Fprintf(w, "  Size: %s\n  Read-only: %v\n  Removable: %v\n", size(int64(disk.Size)), disk.ReadOnly, disk.Removable)
	}
	return nil
}
