package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"muster/cmd/muster/remote"
	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) remoteCommand() *cobra.Command {
	return family("remote", "Keep the list of servers", `  muster remote add far TOKEN
  muster remote switch far
  muster list local:`,
		a.remoteAddCommand(), a.remoteListCommand(), a.remoteSwitchCommand(), a.remoteDefaultCommand(),
		a.remoteChange("remove REMOTE", []string{"rm"}, "Forget a server", "  muster remote remove far", 1,
			func(config *remote.Config, args []string) error { return config.Remove(args[0]) }),
		a.remoteChange("rename REMOTE NAME", []string{"mv"}, "Rename a server in the list", "  muster remote rename far near", 2,
			func(config *remote.Config, args []string) error { return config.Rename(args[0], args[1]) }),
		a.remoteChange("set-url REMOTE ADDRESS", nil, "Change a server's address", "  muster remote set-url far https://10.0.0.2:8443", 2,
			func(config *remote.Config, args []string) error {
				address, err := remote.Address(args[1])
				if err != nil {
					return err
				}
				return config.SetURL(args[0], address)
			}))
}

// completeRemotes proposes remotes for the first argument.
func (a *app) completeRemotes(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	config, err := a.config()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, name := range config.Names() {
		if strings.HasPrefix(name, typed) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// remoteChange is a command that edits the list.
func (a *app) remoteChange(use string, aliases []string, short, example string, count int, change func(*remote.Config, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Aliases: aliases, Short: short, Example: example, Args: between(count, count), ValidArgsFunction: a.completeRemotes,
		RunE: func(_ *cobra.Command, args []string) error {
			config, err := a.config()
			if err != nil {
				return err
			}
			if err := change(config, args); err != nil {
				return err
			}
			return config.Save()
		},
	}
}

func (a *app) remoteSwitchCommand() *cobra.Command {
	cmd := a.remoteChange("switch REMOTE", []string{"set-default"}, "Choose the server that is meant when none is named", "  muster remote switch far", 1,
		func(config *remote.Config, args []string) error {
			if _, ok := config.Remotes[args[0]]; !ok {
				return fmt.Errorf("there is no remote %q", args[0])
			}
			config.Default = args[0]
			return nil
		})
	return cmd
}

func (a *app) remoteDefaultCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get-default", Short: "Print the server that is meant when none is named", Example: "  muster remote get-default", Args: between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			config, err := a.config()
			if err == nil {
				fmt.Fprintln(a.stdout, config.Default)
			}
			return err
		},
	}
}

func (a *app) remoteListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the servers", Example: "  muster remote list", Args: between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			config, err := a.config()
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC"}, Values: config.Remotes}
			for _, name := range config.Names() {
				r := config.Remotes[name]
				shown, auth := name, orElse(r.AuthType, "tls")
				if name == config.Default {
					shown += " (current)"
				}
				if strings.HasPrefix(r.Addr, "unix:") {
					auth = "file access"
				} else if r.Public {
					auth = "none"
				}
				d.Rows = append(d.Rows, []string{shown, r.Addr, orElse(r.Protocol, "lxd"), auth, yesNo(r.Public), yesNo(r.Static)})
			}
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

// newRemote are the flags of remote add.
type newRemote struct {
	password, protocol, project, authType string
	accept, public                        bool
}

func (a *app) remoteAddCommand() *cobra.Command {
	var flags newRemote
	cmd := &cobra.Command{
		Use:   "add NAME ADDRESS|TOKEN",
		Short: "Add a server to the list",
		Long: `Add a server to the list, and make it trust this client: with a token that
"muster config trust add --name YOU" printed on the server, or with its trust
password. Of a server without a token, the certificate's fingerprint is shown to
be compared.`,
		Example: `  muster remote add far eyJjbGllbnRfbmFtZSI6…
  muster remote add far 10.0.0.2
  muster remote add far https://far.example:8443 --accept-certificate --password SECRET
  muster remote add other unix:///var/lib/other/unix.socket`,
		Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := a.config()
			if err != nil {
				return err
			}
			name, address := args[0], args[len(args)-1]
			if flags.protocol != "lxd" {
				return usagef(cmd, "protocol %q: only \"lxd\" is spoken", flags.protocol)
			}
			if flags.authType != "tls" {
				return usagef(cmd, "authentication %q: only \"tls\" is there", flags.authType)
			}
			if err := a.addRemote(cmd.Context(), config, name, address, flags); err != nil {
				return err
			}
			return config.Save()
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.password, "password", "", "the server's trust password")
	f.BoolVar(&flags.accept, "accept-certificate", false, "trust the server's certificate without comparing")
	f.BoolVar(&flags.public, "public", false, "the server only hands out images")
	f.StringVar(&flags.protocol, "protocol", "lxd", "language of the server")
	f.StringVar(&flags.authType, "auth-type", "tls", "way to log in")
	f.StringVar(&flags.project, "project", "", "project to use on the server")
	return cmd
}

func (a *app) addRemote(ctx context.Context, config *remote.Config, name, address string, flags newRemote) error {
	r := remote.Remote{AuthType: "tls", Protocol: "lxd", Public: flags.public, Project: flags.project}
	if strings.HasPrefix(address, "unix:") {
		r.Addr, r.AuthType = address, ""
		return config.Add(name, r)
	}
	token, err := api.ParseCertificateAddToken(address)
	isToken := err == nil
	var certificate *x509.Certificate
	if isToken {
		r.Addr, certificate, err = reach(ctx, token)
	} else if r.Addr, err = remote.Address(address); err == nil {
		certificate, err = client.ServerCertificate(ctx, r.Addr)
	}
	if err != nil {
		return err
	}
	if !isToken && !flags.accept {
		if err := a.compare(ctx, certificate); err != nil {
			return err
		}
	}
	if err := config.Add(name, r); err != nil {
		return err
	}
	if err := config.Pin(name, certificate); err != nil {
		return err
	}
	if flags.public {
		return nil
	}
	if err := a.logIn(ctx, name, token, flags); err != nil {
		// Nothing was saved yet but the certificate.
		return errors.Join(err, config.Remove(name))
	}
	return nil
}

// reach finds an address of the token's that answers with the certificate the
// token names.
func reach(ctx context.Context, token api.CertificateAddToken) (string, *x509.Certificate, error) {
	var failures []error
	for _, each := range token.Addresses {
		if _, _, err := net.SplitHostPort(each); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", each, err))
			continue
		}
		address := "https://" + each
		certificate, err := client.ServerCertificate(ctx, address)
		if err == nil && client.Fingerprint(certificate) != token.Fingerprint {
			err = fmt.Errorf("%s shows another certificate than the token names", address)
		}
		if err == nil {
			return address, certificate, nil
		}
		failures = append(failures, err)
	}
	return "", nil, fmt.Errorf("no address of the token can be used: %w", errors.Join(failures...))
}

// compare lets the user look at the server's fingerprint.
func (a *app) compare(ctx context.Context, certificate *x509.Certificate) error {
	fmt.Fprintf(a.stderr, "Certificate fingerprint: %s\n", client.Fingerprint(certificate))
	if a.piped() {
		return errors.New("nobody is there to compare the fingerprint: use a token, or --accept-certificate")
	}
	fmt.Fprint(a.stderr, "Is this the server's (`muster info` on it shows its own)? (y/n) [n]: ")
	answer, err := a.line(ctx)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(strings.ToLower(answer), "y") {
		return errors.New("the server's certificate was not accepted")
	}
	return nil
}

// logIn makes the server trust our certificate, unless it does already.
func (a *app) logIn(ctx context.Context, name string, token api.CertificateAddToken, flags newRemote) error {
	c, err := a.connect(name)
	if err != nil {
		return err
	}
	server, _, err := c.Server(ctx)
	if err != nil || server.Auth == "trusted" {
		return err
	}
	secret := flags.password
	if token.Secret != "" {
		// Servers want the whole token where a password would stand.
		secret = token.String()
	}
	if secret == "" && !a.piped() {
		fmt.Fprintf(a.stderr, "Trust password for %s (or a token's secret): ", name)
		text, err := term.ReadPassword(int(a.stdin.Fd()))
		fmt.Fprintln(a.stderr)
		if err != nil {
			return err
		}
		secret = string(text)
	}
	if secret == "" {
		return advise(errors.New("the server does not trust us yet"), "Use a token (`muster config trust add --name YOU` on the server prints one), or --password.")
	}
	post := api.CertificatesPost{Password: secret}
	post.Type = "client"
	if err := c.AddCertificate(ctx, post); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	server, _, err = c.Server(ctx)
	if err == nil && server.Auth != "trusted" {
		err = errors.New("the server took the secret and still does not trust us")
	}
	if err == nil {
		a.say("Client certificate now trusted by server: %s", name)
	}
	return err
}
