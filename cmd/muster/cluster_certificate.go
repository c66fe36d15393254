package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func (a *app) clusterCertificateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "update-certificate [REMOTE:] CERTIFICATE KEY", Short: "Replace the certificate that all members show to clients",
		Long: `Replace the certificate that all members show to clients, with the files of another one
and its key, in PEM form. Clients that know the present one have to be told: what this
program knows of the remote is changed with it.`,
		Example: "  muster cluster update-certificate cluster.crt cluster.key",
		Args:    between(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, files, err := a.server(args)
			if err != nil {
				return err
			}
			if len(files) != 2 {
				return usagef(cmd, "want a certificate and its key: %s", cmd.UseLine())
			}
			certificate, err := os.ReadFile(files[0])
			if err != nil {
				return err
			}
			key, err := os.ReadFile(files[1])
			if err != nil {
				return err
			}
			if err := t.UpdateClusterCertificate(cmd.Context(), string(certificate), string(key)); err != nil {
				return err
			}
			a.say("Cluster certificate updated")
			if t.Local() {
				return nil
			}
			block, _ := pem.Decode(certificate)
			if block == nil {
				return fmt.Errorf("%s is no certificate in PEM form", files[0]) // the server has taken it
			}
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return err
			}
			config, err := a.config()
			if err != nil {
				return err
			}
			return config.Pin(t.remote, leaf)
		},
	}
}
