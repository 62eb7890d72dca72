//go:build unix

package file

import (
	"io/fs"
	"os"
	"syscall"
)

// stranger says whether a file belongs to a user that is neither root nor this one: that user can write it whatever its
// mode says.
func stranger(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid()
}
