// Package backup is the file that a coordinator can begin again from: what is in it, how it is written
// while the coordinator works, and how a data directory is made of it.
//
// The file is a tar archive, so that anybody can look what is there:
//
//	manifest.json      what this is: which log, from where to where, and what it amounts to
//	files/NAME         the authorities with their keys, and the tokens that stand in files
//	kv/BUCKET/NUMBER   what was decided by compare-and-set: keys and values
//	log/NUMBER         the log's messages, in order
//	sha256             the SHA-256, in hex, of all bytes before this entry
//
// Entries of kv and log hold records: the length of the payload (4 bytes, big endian), its CRC32C (4
// bytes), the payload. A payload of log is a position (8 bytes, big endian) and the message; one of kv is
// the length of the key (2 bytes, big endian), the key and the value. Neither end holds more of the file in
// memory than one entry.
package backup

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus"
)

// Format is the version of the file that this program writes. It reads this one and those before.
const Format = 1

const (
	manifestName = "manifest.json"
	trailerName  = "sha256"
	filesPrefix  = "files/"
	keysPrefix   = "kv/"
	logPrefix    = "log/"

	// maxManifest and maxFile bound what is read of an entry, in bytes.
	maxManifest = 64 << 10
	maxFile     = 1 << 20
	// segmentBytes is the size from which on an entry of records is closed.
	segmentBytes = 1 << 20
	// frameBytes is what a record has before its payload; positionBytes and keyBytes what a payload has before
	// the message, or the key.
	frameBytes    = 8
	positionBytes = 8
	keyBytes      = 2
	// maxKey bounds the name of a key, in bytes.
	maxKey = 1 << 10
	// maxPayload bounds the payload of a record: the largest message of the log.
	maxPayload = positionBytes + bus.MaxPayload
	// maxSegment bounds an entry of records.
	maxSegment = segmentBytes + frameBytes + maxPayload
)

// Files are the names of the files that a backup has of the data directory, where they are there. No other is
// taken from a backup.
func Files() []string { return []string{"ca.pem", "ca.key", AdminFile, "agents.secret"} }

// What is wrong with a file that cannot be read as a backup.
var (
	// ErrForeign says that it is no backup at all.
	ErrForeign = errors.New("this is not a backup of a coordinator")
	// ErrNewer says that a newer program made it.
	ErrNewer = errors.New("a newer version of the program made this backup")
	// ErrShort says that its end is missing.
	ErrShort = errors.New("the end of the backup is missing: taking or copying it was interrupted")
	// ErrDamaged says that it is not as it was written.
	ErrDamaged = errors.New("the backup is damaged")
)

// Manifest is what a backup says of itself.
type Manifest struct {
	// Format is the version of the file.
	Format int `json:"format"`
	// LogID is the log's name.
	LogID string `json:"log_id"`
	// First and Last are the positions that it has of the log. Without any, First is one beyond Last.
	First uint64 `json:"first_position"`
	Last  uint64 `json:"last_position"`
	// StateHash is what the log amounts to at Last.
	StateHash []byte `json:"state_hash"`
	// Program is the version of the program that made it.
	Program string `json:"program"`
	// Created is when it was begun, by the coordinator's clock.
	Created time.Time `json:"created"`
}

// crcTable is Castagnoli's polynomial: CRC32C (RFC 3720, B.4).
var crcTable = crc32.MakeTable(crc32.Castagnoli)

// header is that of every entry: what it says follows from name, size and time, so that nothing in it can be
// changed without being seen.
func header(name string, size int, at time.Time) *tar.Header {
	return &tar.Header{
		Typeflag: tar.TypeReg, Format: tar.FormatUSTAR, Name: name, Mode: 0o600, Size: int64(size), ModTime: at.Truncate(time.Second),
	}
}

// tail is all that stands behind the last entry but one: the sum of what is before it, and the end of the archive.
func tail(sum []byte, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := fmt.Appendf(nil, "%x\n", sum)
	if err := w.WriteHeader(header(trailerName, len(text), at)); err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// parseManifest reads a manifest, the version first: the rest may have changed with it.
func parseManifest(data []byte) (m Manifest, err error) {
	if err := json.Unmarshal(data, &struct {
		Format *int `json:"format"`
	}{&m.Format}); err != nil || m.Format < 1 {
		return m, ErrForeign
	}
	if m.Format > Format {
		return m, fmt.Errorf("%w: it has format %d, and this one reads up to %d", ErrNewer, m.Format, Format)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%w: its manifest: %w", ErrDamaged, err)
	}
	if m.LogID == "" || m.First < 1 || m.First-1 > m.Last || len(m.StateHash) == 0 {
		return m, fmt.Errorf("%w: its manifest is not complete", ErrDamaged)
	}
	return m, nil
}

// Same says whether two manifests say the same.
func (m Manifest) Same(o Manifest) bool {
	return m.LogID == o.LogID && m.First == o.First && m.Last == o.Last && bytes.Equal(m.StateHash, o.StateHash) && m.Created.Equal(o.Created)
}

// AdminFile is the file that holds the text of a token of SCOPE_ADMIN, for who has the data directory. It is also that token's name.
const AdminFile = "admin.token"

// UnfinishedName is the file that marks a data directory into which a backup is being restored.
const UnfinishedName = "restore-unfinished"

// Unfinished says why no coordinator may start on a data directory that holds only a part of a backup.
func Unfinished(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, UnfinishedName)); err != nil {
		return nil
	}
	return fmt.Errorf("%s: a backup is being restored into it, or was and did not come to an end; in that case empty it and restore again", dir)
}
