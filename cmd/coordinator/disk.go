package main

import (
	"fmt"
	"log/slog"
	"os"
)

// The file systems that matter here, by the number that statfs(2) has for them (linux/magic.h).
const (
	nfs     = 0x6969
	cifs    = 0xff534d42
	smb2    = 0xfe534d42
	tmpfs   = 0x01021994
	ramfs   = 0x858458f6
	overlay = 0x794c7630
)

// fitDisk refuses a data directory whose file system does not keep what it was told to keep, and warns of one that
// goes away with a machine or a container.
func fitDisk(dir string, log *slog.Logger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	kind, known := fileSystem(dir)
	if !known {
		return nil
	}
	refuse, warn := disk(kind)
	if refuse != "" {
		return fmt.Errorf("--data-dir %s is on %s: locks and syncs there do not hold what the log needs; give a directory on a disk of this machine", dir, refuse)
	}
	if warn != "" {
		log.Warn("THE DATA DIRECTORY DOES NOT LAST: it is on "+warn, "dir", dir)
	}
	return nil
}

// disk says of a kind of file system why it is refused, or what to be warned of.
func disk(kind uint32) (refuse, warn string) {
	switch kind {
	case nfs:
		return "NFS", ""
	case cifs, smb2:
		return "SMB", ""
	case tmpfs, ramfs:
		return "", "memory: all of it is gone when the machine stops"
	case overlay:
		return "", "the layer of a container: all of it is gone with the container; give a volume"
	}
	return "", ""
}
