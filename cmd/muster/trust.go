package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) trustCommand() *cobra.Command {
	return family("trust", "Say which clients the server trusts", `  muster config trust add --name alice
  muster config trust list`,
		a.trustAddCommand(), a.trustListCommand(), a.trustShowCommand(), a.trustEditCommand(), a.trustRemoveCommand(),
		a.trustTokensCommand(), a.trustRevokeCommand())
}

func (a *app) trustAddCommand() *cobra.Command {
	var post api.CertificatesPost
	var projects string
	cmd := &cobra.Command{
		Use:   "add [REMOTE:] [CERTIFICATE FILE]",
		Short: "Trust a client's certificate, or make a token that lets one in",
		Long: `With a file, trust the certificate in it. Without one, print a token that lets a
client in once: it uses it with "muster remote add NAME TOKEN".`,
		Example: `  muster config trust add --name alice
  muster config trust add alice.crt --restricted --projects web,db`,
		Args: between(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, rest, err := a.server(args)
			if err != nil {
				return err
			}
			if projects != "" {
				post.Projects = strings.Split(projects, ",")
			}
			if post.Restricted {
				fmt.Fprintln(a.stderr, restrictedNote)
			}
			if len(rest) > 0 {
				return a.trustFile(cmd.Context(), t, rest[0], post)
			}
			if post.Name == "" {
				return usagef(cmd, "a token is for somebody: say whom with --name")
			}
			return a.trustToken(cmd.Context(), t, post)
		},
	}
	f := cmd.Flags()
	f.StringVar(&post.Name, "name", "", "whose certificate it is")
	f.StringVar(&post.Type, "type", "client", "client or metrics")
	f.BoolVar(&post.Restricted, "restricted", false, "only let it into the projects of --projects")
	f.StringVar(&projects, "projects", "", "projects to restrict it to, separated by commas")
	return cmd
}

// restrictedNote is what whoever lets a restricted client in has to know.
const restrictedNote = `Note: a restricted certificate keeps a client to its projects, not off the host: in a project that it may use it
can make privileged instances and give them the host's disks, which makes it root there. Give one to those only
whom you would make root.`

func (a *app) trustFile(ctx context.Context, t thing, file string, post api.CertificatesPost) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s holds no PEM certificate", file)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if post.Name == "" {
		post.Name = filepath.Base(file)
	}
	post.Certificate = base64.StdEncoding.EncodeToString(block.Bytes)
	return t.AddCertificate(ctx, post)
}

func (a *app) trustToken(ctx context.Context, t thing, post api.CertificatesPost) error {
	op, err := t.CertificateToken(ctx, post)
	if err != nil {
		return err
	}
	token, err := tokenOf(op.Operation)
	if err != nil {
		return err
	}
	if len(token.Addresses) == 0 {
		fmt.Fprintln(a.stderr, "Nobody can use the token before core.https_address is set.")
	}
	a.say("Client %s certificate add token:", post.Name)
	fmt.Fprintln(a.stdout, token)
	return nil
}

// tokenOf makes the token out of what the token operation says.
func tokenOf(op api.Operation) (api.CertificateAddToken, error) {
	var token api.CertificateAddToken
	var said struct {
		api.CertificateAddToken
		// The operation's word for it is not the token's.
		ExpiresAt time.Time `json:"expiresAt"`
		Request   struct {
			Name string `json:"name"`
		} `json:"request"`
	}
	text, err := json.Marshal(op.Metadata)
	if err == nil {
		err = json.Unmarshal(text, &said)
	}
	if err != nil {
		return token, fmt.Errorf("operation %s: %w", op.ID, err)
	}
	token = said.CertificateAddToken
	token.ExpiresAt = said.ExpiresAt
	if token.ClientName == "" {
		token.ClientName = said.Request.Name
	}
	if token.Secret == "" {
		return token, fmt.Errorf("operation %s has no secret", op.ID)
	}
	return token, nil
}

func (a *app) trustListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List trusted clients", Example: "  muster config trust list",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			certificates, err := t.Certificates(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE"}, Values: certificates}
			for _, c := range certificates {
				row := []string{c.Type, c.Name, "", elided(c.Fingerprint, 12), "", ""}
				if block, _ := pem.Decode([]byte(c.Certificate)); block != nil {
					if parsed, err := x509.ParseCertificate(block.Bytes); err == nil {
						row[2], row[4], row[5] = parsed.Subject.CommonName, longDate(parsed.NotBefore), longDate(parsed.NotAfter)
					}
				}
				d.Rows = append(d.Rows, row)
			}
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) trustShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show [REMOTE:]FINGERPRINT", Short: "Show a trusted client as YAML", Example: "  muster config trust show 3ee64be3c3c7",
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "fingerprint")
			if err != nil {
				return err
			}
			certificate, _, err := t.Certificate(cmd.Context(), t.name)
			if err != nil {
				return err
			}
			return a.yaml(certificate)
		},
	}
}

func (a *app) trustEditCommand() *cobra.Command {
	return &cobra.Command{
		Use: "edit [REMOTE:]FINGERPRINT", Short: "Edit a trusted client as YAML", Example: "  muster config trust edit 3ee64be3c3c7",
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.named(args[0], "fingerprint")
			if err != nil {
				return err
			}
			certificate, etag, err := t.Certificate(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, certificate.CertificatePut, func(put api.CertificatePut) error {
				return t.UpdateCertificate(ctx, certificate.Fingerprint, put, etag)
			})
		},
	}
}

func (a *app) trustRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove [REMOTE:]FINGERPRINT", Aliases: []string{"rm"}, Short: "Stop trusting a client",
		Example: "  muster config trust remove 3ee64be3c3c7",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "fingerprint")
			if err != nil {
				return err
			}
			return t.DeleteCertificate(cmd.Context(), t.name)
		},
	}
}

// trustTokens lists the token operations of clients.
func trustTokens(ctx context.Context, c *client.Client) ([]api.CertificateAddToken, map[string]string, error) {
	operations, err := c.Operations(ctx, false)
	var tokens []api.CertificateAddToken
	ids := map[string]string{}
	for _, op := range operations {
		if op.Class != api.OperationClassToken || op.StatusCode != api.Running {
			continue
		}
		// Other token operations, of images for one, name no client.
		if token, err := tokenOf(op); err == nil && token.ClientName != "" {
			tokens = append(tokens, token)
			ids[token.ClientName] = op.ID
		}
	}
	return tokens, ids, err
}

func (a *app) trustTokensCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list-tokens [REMOTE:]", Short: "List tokens that nobody has used yet", Example: "  muster config trust list-tokens",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			tokens, _, err := trustTokens(cmd.Context(), t.Client)
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"NAME", "TOKEN", "EXPIRES AT"}, Values: tokens}
			for _, token := range tokens {
				d.Rows = append(d.Rows, []string{token.ClientName, token.String(), moment(token.ExpiresAt)})
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) trustRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke-token [REMOTE:]NAME", Short: "Make a token useless", Example: "  muster config trust revoke-token alice",
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "client")
			if err != nil {
				return err
			}
			_, ids, err := trustTokens(cmd.Context(), t.Client)
			if err != nil {
				return err
			}
			id, ok := ids[t.name]
			if !ok {
				return fmt.Errorf("there is no token for %q", t.name)
			}
			return t.CancelOperation(cmd.Context(), id)
		},
	}
}
