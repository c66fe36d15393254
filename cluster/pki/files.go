package pki

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"muster/state"
)

// pendingFile holds a whole pair while its two files are being put in place:
// two renames cannot be one, so this file is what makes them one. It exists
// from the moment the pair counts until both files are there; whoever finds it
// finishes the work.
const pendingFile = "pki.pending"

// The PEM headers that say in pendingFile where its blocks belong.
const fileHeader = "Muster-File"

// store is the directory of an identity.
type store struct{ dir string }

func (s store) path(name string) string { return filepath.Join(s.dir, name) }

func (s store) exists(name string) bool {
	_, err := os.Lstat(s.path(name))
	return err == nil
}

// install puts a pair into its two files, as one step as far as a crash can
// tell.
func (s store) install(certName, keyName string, pair *Pair) error {
	return s.installAll([]part{{keyName, pair.keyPEM}, {certName, pair.CertificatePEM}})
}

// finishPending puts a pair whose installation was interrupted into place.
func (s store) finishPending() error {
	pending, err := os.ReadFile(s.path(pendingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	var order []string
	for block, rest := pem.Decode(pending); block != nil; block, rest = pem.Decode(rest) {
		name := block.Headers[fileHeader]
		if _, seen := files[name]; !seen {
			order = append(order, name)
		}
		files[name] = append(files[name], pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	for _, name := range order {
		mode, known := modes[name]
		if !known {
			return state.Errorf(state.ErrConflict, "%s is damaged: it names a file %q; remove it if nobody is replacing certificates", s.path(pendingFile), name)
		}
		if err := s.write(name, files[name], mode); err != nil {
			return err
		}
	}
	if err := os.Remove(s.path(pendingFile)); err != nil {
		return err
	}
	return s.syncDir()
}

// modes are the permissions of each file.
var modes = map[string]os.FileMode{
	ServerCertificateFile: 0o644, ServerKeyFile: 0o600,
	AuthorityFile: 0o644, AuthorityKeyFile: 0o600,
	MemberCertificateFile: 0o644, MemberKeyFile: 0o600,
}

// write replaces a file whole: after a crash it holds the old or the new
// content.
func (s store) write(name string, data []byte, mode os.FileMode) error {
	temporary := s.path(name + ".tmp")
	// A leftover of a crash may have another mode: begin with a file of ours.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(temporary, s.path(name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", s.path(name), err), os.Remove(temporary))
	}
	return s.syncDir()
}

func (s store) syncDir() error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
