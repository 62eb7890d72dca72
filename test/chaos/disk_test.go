package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	namespace "github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// disk is a file system in an image file, which stands for what has reached the medium: what the kernel has
// not written there yet is lost when the power is cut.
type disk struct {
	image, at string
	bytes     int64
	cuts      int
}

// newDisk makes a disk in dir and mounts it. The journal is written when somebody asks for it, and otherwise
// only every five minutes: a cut takes all that nobody forced to disk.
func newDisk(ctx context.Context, dir, name string, bytes int64) (*disk, error) {
	d := &disk{image: filepath.Join(dir, name+".img"), at: filepath.Join(dir, name), bytes: bytes}
	file, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(file.Truncate(bytes), file.Close(), os.MkdirAll(d.at, 0o755)); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "mkfs.ext4", "-qF", d.image).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return d, d.mount(ctx)
}

func (d *disk) mount(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "mount", "-o", "loop,commit=300", d.image, d.at).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %w: %s", d.image, err, out)
	}
	return nil
}

// snapshot copies what is on the medium now. Whoever writes to the disk has to stand still.
func (d *disk) snapshot(ctx context.Context) (image string, err error) {
	d.cuts++
	image = fmt.Sprintf("%s.%d", d.image, d.cuts)
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", d.image, image).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cp: %w: %s", err, out)
	}
	return image, nil
}

// revert puts an image in the place of the disk: the power is back. Nobody may use the disk.
func (d *disk) revert(ctx context.Context, image string) error {
	if err := unix.Unmount(d.at, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", d.at, err)
	}
	if err := os.Rename(image, d.image); err != nil {
		return err
	}
	return d.mount(ctx)
}

// fill leaves no room on the disk, but for what is left over by blocks.
func (d *disk) fill() error {
	file, err := os.Create(filepath.Join(d.at, "ballast"))
	if err != nil {
		return err
	}
	defer file.Close()
	at := int64(0)
	for size := d.bytes; size >= 64<<10; {
		err := unix.Fallocate(int(file.Fd()), 0, at, size)
		switch {
		case err == nil:
			at += size
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		default:
			return err
		}
	}
	if _, err := file.Seek(at, io.SeekStart); err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err := file.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}

// free takes back what fill took, for good: what the disk does not know of would be taken again by the next power cut.
func (d *disk) free(ctx context.Context) error {
	return errors.Join(os.Remove(filepath.Join(d.at, "ballast")), d.sync(ctx))
}

// sync has everything that was written so far reach the medium.
func (d *disk) sync(ctx context.Context) error {
	return exec.CommandContext(ctx, "sync", "-f", d.at).Run()
}

// room is how many bytes are free.
func (d *disk) room() (int64, error) {
	var s unix.Statfs_t
	err := unix.Statfs(d.at, &s)
	return int64(s.Bavail) * s.Bsize, err
}

// removeDirs unmounts and deletes what runs that are over have left in the temporary directory.
func removeDirs(context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), "elsewhere-chaos-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if namespace.Left(filepath.Base(dir), "elsewhere-chaos-") {
			err = errors.Join(err, unmountBelow(dir), os.RemoveAll(dir))
		}
	}
	return err
}

// unmountBelow unmounts what is mounted below a directory, what was mounted last first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(string(table), "\n")
	var errs []error
	for i := range lines {
		fields := strings.Fields(lines[len(lines)-1-i])
		if len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			errs = append(errs, unix.Unmount(fields[1], unix.MNT_DETACH)) // a process may be about to end
		}
	}
	return errors.Join(errs...)
}
