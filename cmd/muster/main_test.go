package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"muster/node/image"
	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"muster": main})
}

// Scripts in testdata/local need no server.
func TestLocalScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/local",
		Setup: func(env *testscript.Env) error {
			env.Setenv("MUSTER_CONF", filepath.Join(env.WorkDir, "conf"))
			env.Setenv("MUSTER_DIR", filepath.Join(env.WorkDir, "nowhere"))
			env.Setenv("TZ", "UTC")
			return nil
		},
		RequireUniqueNames: true,
	})
}

// testServer connects to the real daemon that the scripts are run against, and
// makes sure that it has an image to launch.
func testServer(t *testing.T) *client.Client {
	t.Helper()
	socket := os.Getenv("MUSTER_TEST_SOCKET")
	if socket == "" {
		t.Skip("needs a daemon: MUSTER_TEST_SOCKET names no socket")
	}
	c, err := client.New(client.Config{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := c.ImageAlias(ctx, "busybox"); client.IsNotFound(err) {
		importBusybox(ctx, t, c)
	} else if err != nil {
		t.Fatal(err)
	}
	return c
}

func importBusybox(ctx context.Context, t *testing.T, c *client.Client) {
	t.Helper()
	built, err := image.BuildBusybox(ctx, image.BusyboxSpec{OutDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(built.Unified)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	op, err := c.UploadImage(ctx, client.ImageUpload{Meta: client.ImagePart{Name: "busybox.tar.gz", Content: file, Size: built.Size}})
	if err == nil {
		err = op.Wait(ctx, nil)
	}
	if err != nil && !client.IsConflict(err) {
		t.Fatal(err)
	}
	alias := api.ImageAliasesPost{Name: "busybox", ImageAliasesEntryPut: api.ImageAliasesEntryPut{Target: built.Fingerprint}}
	if err := c.CreateImageAlias(ctx, alias); err != nil && !client.IsConflict(err) {
		t.Fatal(err)
	}
}

// unique is a name that no other test has: short, since bridges have 15 letters.
func unique() string {
	var b [3]byte
	_, _ = rand.Read(b[:])
	return "t" + hex.EncodeToString(b[:])
}

// cleanUp removes whatever has a name that starts with the prefix.
func cleanUp(c *client.Client, prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ours := func(name string) bool { return strings.HasPrefix(name, prefix) }
	finish := func(op *client.Operation, err error) error {
		if err == nil {
			err = op.Wait(ctx, nil)
		}
		if client.IsNotFound(err) {
			return nil
		}
		return err
	}
	instances, err := c.Instances(ctx, client.InstancesQuery{})
	if err != nil {
		return err
	}
	for _, i := range instances {
		if !ours(i.Name) {
			continue
		}
		if i.StatusCode != api.Stopped {
			// An ephemeral one may vanish here; the deletion below says more.
			_ = finish(c.SetInstanceState(ctx, i.Name, api.InstanceStatePut{Action: "stop", Force: true, Timeout: 30}))
		}
		if err := finish(c.DeleteInstance(ctx, i.Name)); err != nil {
			return err
		}
	}
	images, err := c.Images(ctx, "")
	if err != nil {
		return err
	}
	for _, i := range images {
		for _, alias := range i.Aliases {
			if ours(alias.Name) {
				if err := finish(c.DeleteImage(ctx, i.Fingerprint)); err != nil {
					return err
				}
				break
			}
		}
	}
	for _, each := range []struct {
		names  func(context.Context) ([]string, error)
		delete func(context.Context, string) error
	}{
		{c.ProfileNames, c.DeleteProfile},
		{c.NetworkNames, c.DeleteNetwork},
		{c.PoolNames, c.DeletePool},
		{func(ctx context.Context) ([]string, error) { return projectNames(ctx, c) }, c.DeleteProject},
	} {
		names, err := each.names(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			if ours(name) {
				if err := each.delete(ctx, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func cleanUpTrust(c *client.Client, prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	certificates, err := c.Certificates(ctx)
	for _, each := range certificates {
		if strings.HasPrefix(each.Name, prefix) {
			err = errors.Join(err, c.DeleteCertificate(ctx, each.Fingerprint))
		}
	}
	return err
}

// keepAddress puts core.https_address back after the test. It returns what the
// server says of itself.
func keepAddress(t *testing.T, c *client.Client) api.Server {
	t.Helper()
	server, _, err := c.Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, _ := server.Config["core.https_address"].(string)
	t.Cleanup(func() {
		patch := api.ServerPut{Config: map[string]any{"core.https_address": before}}
		if err := c.PatchServer(context.Background(), patch); err != nil {
			t.Error(err)
		}
	})
	return server
}

// freePort is a port that nobody listens on at the moment.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}

// Scripts in testdata/script drive a real daemon, one script for each family of
// commands. $N is a name of the script's own; what is called so is removed
// afterwards.
func TestScripts(t *testing.T) {
	c := testServer(t)
	server := keepAddress(t, c)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("MUSTER_CONF", filepath.Join(env.WorkDir, "conf"))
			env.Setenv("MUSTER_SOCKET", os.Getenv("MUSTER_TEST_SOCKET"))
			env.Setenv("TZ", "UTC")
			n := unique()
			env.Setenv("N", n)
			port, err := freePort()
			if err != nil {
				return err
			}
			env.Setenv("PORT", port)
			env.Defer(func() {
				if err := errors.Join(cleanUp(c, n), cleanUpTrust(c, n)); err != nil {
					t.Errorf("clean up %s: %v", n, err)
				}
			})
			return nil
		},
		// [ext:NAME] says whether the server announces an API extension.
		Condition: func(condition string) (bool, error) {
			name, ok := strings.CutPrefix(condition, "ext:")
			if !ok {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			return client.Extensions(server.APIExtensions).Has(name), nil
		},
		RequireUniqueNames: true,
	})
}

// Every command can be found out about without the source.
func TestEveryCommandExplainsItself(t *testing.T) {
	root := newRoot(newApp(os.Stdin, os.Stdout, os.Stderr, func(string) string { return "" }))
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, each := range cmd.Commands() {
			walk(each)
		}
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%q has no description or no example", cmd.CommandPath())
		}
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if len(line) > 0 && !strings.HasPrefix(line, "  ") {
				t.Errorf("%q: example %q is not indented", cmd.CommandPath(), line)
			}
		}
		seen := map[string]string{}
		for _, each := range cmd.Commands() {
			for _, name := range append(each.Aliases, each.Name()) {
				if other, twice := seen[name]; twice {
					t.Errorf("%q has two commands called %q: %q and %q", cmd.CommandPath(), name, other, each.Use)
				}
				seen[name] = each.Use
			}
		}
	}
	walk(root)
}
