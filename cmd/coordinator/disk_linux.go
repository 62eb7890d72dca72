package main

import "syscall"

// fileSystem is the kind of file system that a directory is on.
func fileSystem(dir string) (kind uint32, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false
	}
	// Its type differs from one architecture to the next.
	return uint32(s.Type), true
}
