//go:build !unix

package file

import "io/fs"

// stranger says whether a file belongs to a user that is neither root nor this one. Here nobody can say.
func stranger(fs.FileInfo) bool { return false }
