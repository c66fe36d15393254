package cluster

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/google/uuid"
	"github.com/pkg/sftp"

	"muster/node/runtime"
	"muster/state"
)

// WriteFile writes a file of an instance, or makes a directory or a link. When it fails,
// what was there before is there as it was, and nothing new.
func (c *Cluster) WriteFile(ctx context.Context, project, instance, name string, spec FileSpec) error {
	switch spec.Type {
	case "", "file", "directory", "symlink":
	default:
		return state.Errorf(state.ErrInvalid, "type %q: want file, directory or symlink", spec.Type)
	}
	client, err := c.dial(ctx, project, instance, name)
	if err != nil {
		return err
	}
	defer client.Close()
	name = absolute(name)
	switch spec.Type {
	case "directory":
		err = makeDirectory(client, name, spec)
	case "symlink":
		err = makeLink(client, name, spec.Content)
	default:
		err = writeContent(client, name, spec)
	}
	return fileError(err, name)
}

func makeDirectory(client *sftp.Client, name string, spec FileSpec) error {
	info, err := client.Stat(name)
	switch {
	case err == nil && !info.IsDir():
		return state.Errorf(state.ErrExists, "path %q exists and is no directory", name)
	case err == nil:
		return setOwner(client, name, nil, spec)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := client.Mkdir(name); err != nil {
		return err
	}
	if err := setOwner(client, name, new(uint32(0o755)), spec); err != nil {
		return errors.Join(err, client.RemoveDirectory(name))
	}
	return nil
}

func makeLink(client *sftp.Client, name string, content io.Reader) error {
	target, err := io.ReadAll(io.LimitReader(content, 4097))
	if err != nil {
		return err
	}
	if len(target) == 0 || len(target) > 4096 {
		return state.Errorf(state.ErrInvalid, "the body is the link's target: want 1 to 4096 bytes")
	}
	if _, err := client.Lstat(name); err == nil {
		if err := client.Remove(name); err != nil {
			return err
		}
	}
	return client.Symlink(string(target), name)
}

// writeContent writes a file. What it replaces stays until the new one is whole: that is
// written beside it and takes its name at the end.
func writeContent(client *sftp.Client, name string, spec FileSpec) error {
	name, err := followLinks(client, name)
	if err != nil {
		return err
	}
	was, err := client.Stat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !was.Mode().IsRegular() {
		return state.Errorf(state.ErrInvalid, "path %q is no regular file: it can't be written to", name)
	}
	if err != nil {
		was = nil
	}
	if spec.Append && was != nil {
		return appendContent(client, name, spec)
	}
	beside := path.Join(path.Dir(name), runtime.PushPrefix+uuid.NewString())
	if err := writeNew(client, beside, was, spec); err != nil {
		if remove := client.Remove(beside); remove != nil && !errors.Is(remove, fs.ErrNotExist) {
			return errors.Join(err, remove)
		}
		return err
	}
	err = client.PosixRename(beside, name)
	if err == nil {
		return nil
	}
	// What is a mount point, such as /etc/hosts in some containers, can't be replaced.
	if was != nil {
		err = copyWithin(client, beside, name)
	}
	return errors.Join(err, client.Remove(beside))
}

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// followLinks returns what the last part of a path leads to, when it is a symbolic link: a
// push goes to the link's target. The parts before are the kernel's to resolve.
func followLinks(client *sftp.Client, name string) (string, error) {
	for range maxLinks {
		info, err := client.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		target, err := client.ReadLink(name)
		if err != nil {
			return "", err
		}
		if !strings.HasPrefix(target, "/") {
			// Not path.Join: ".." after a link to a directory means the parent of that.
			target = path.Dir(name) + "/" + target
		}
		name = target
	}
	return "", state.Errorf(state.ErrInvalid, "path %q leads through too many symbolic links", name)
}

// writeNew makes a file with an owner and a mode before anything of its content is there.
// Those that spec does not give are the ones of the file it is to replace.
func writeNew(client *sftp.Client, name string, replaces os.FileInfo, spec FileSpec) error {
	file, err := client.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	mode := new(uint32(0o644))
	if replaces != nil {
		mode = new(permissions(replaces.Mode()))
		if stat, ok := replaces.Sys().(*sftp.FileStat); ok {
			uid, gid := int(stat.UID), int(stat.GID)
			if spec.UID == nil {
				spec.UID = &uid
			}
			if spec.GID == nil {
				spec.GID = &gid
			}
		}
	}
	if err := setOwner(client, name, mode, spec); err != nil {
		return errors.Join(err, file.Close())
	}
	_, err = file.ReadFrom(spec.Content)
	err = errors.Join(err, file.Close())
	if err != nil {
		return err
	}
	// Writing took a setuid bit away.
	return setOwner(client, name, mode, FileSpec{Mode: spec.Mode})
}

func appendContent(client *sftp.Client, name string, spec FileSpec) error {
	if err := setOwner(client, name, nil, spec); err != nil {
		return err
	}
	file, err := client.OpenFile(name, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Seek(info.Size(), io.SeekStart)
	}
	if err == nil {
		_, err = file.ReadFrom(spec.Content)
	}
	return errors.Join(err, file.Close())
}

// copyWithin writes the content of one file of an instance over another.
func copyWithin(client *sftp.Client, from, to string) error {
	source, err := client.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := client.OpenFile(to, os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// setOwner gives a file the owner and the mode that spec asks for, and mode, unless nil,
// when spec says nothing of it.
func setOwner(client *sftp.Client, name string, mode *uint32, spec FileSpec) error {
	if spec.Mode != nil {
		mode = spec.Mode
	}
	if spec.UID != nil || spec.GID != nil {
		info, err := client.Stat(name)
		if err != nil {
			return err
		}
		uid, gid := 0, 0
		if stat, ok := info.Sys().(*sftp.FileStat); ok {
			uid, gid = int(stat.UID), int(stat.GID)
		}
		if spec.UID != nil {
			uid = *spec.UID
		}
		if spec.GID != nil {
			gid = *spec.GID
		}
		if err := client.Chown(name, uid, gid); err != nil {
			if status := new(sftp.StatusError); errors.As(err, &status) {
				return state.Errorf(state.ErrInvalid, "owner %d:%d: the instance has no such ids: %w", uid, gid, err)
			}
			return err
		}
	}
	if mode == nil {
		return nil
	}
	// After the owner: a change of owner takes the setuid bit away.
	return client.Chmod(name, fileMode(*mode))
}

func fileMode(bits uint32) fs.FileMode {
	mode := fs.FileMode(bits & 0o777)
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if bits&bit != 0 {
			mode |= flag
		}
	}
	return mode
}
