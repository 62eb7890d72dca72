package backup_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/internal/backup"
)

// said is what a backup holds, as text.
type said []string

func (s *said) contents() backup.Contents {
	return backup.Contents{
		File: func(name string, data []byte) error {
			*s = append(*s, fmt.Sprintf("file %s %s", name, data))
			return nil
		},
		Key: func(bucket, key string, value []byte) error {
			*s = append(*s, fmt.Sprintf("key %s %s %s", bucket, key, value))
			return nil
		},
		Message: func(position uint64, data []byte) error {
			*s = append(*s, fmt.Sprintf("message %d %s", position, data))
			return nil
		},
	}
}

var manifest = backup.Manifest{
	LogID: "01K0000000000000000000000", First: 7, Last: 9, StateHash: []byte{1, 2, 3}, Program: "v0",
	Created: time.Date(2026, 11, 22, 10, 0, 0, 12345, time.UTC),
}

// made is a backup, and what it holds. Its messages have size bytes.
func made(t testing.TB, m backup.Manifest, size int) (file []byte, holds said) {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, m)
	if err != nil {
		t.Fatal(err)
	}
	hears := holds.contents()
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range backup.Files()[:2] {
		do(w.File(name, []byte("pem of "+name)), hears.File(name, []byte("pem of "+name)))
	}
	for _, bucket := range []string{"agents", "tokens"} {
		for _, key := range []string{"a", "b.c"} {
			do(w.Key(bucket, key, []byte("v")), hears.Key(bucket, key, []byte("v")))
		}
	}
	for position := m.First; position <= m.Last; position++ {
		data := bytes.Repeat([]byte{byte('a' + position%26)}, size)
		do(w.Message(position, data), hears.Message(position, data))
	}
	do(w.Close())
	return out.Bytes(), holds
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, c := range []struct {
		what        string
		first, last uint64
		size        int
	}{
		{"a few small messages", 7, 9, 10},
		{"a log that is empty", 1, 0, 0},
		{"a log of which all is forgotten", 8, 7, 0},
		{"messages of no length", 1, 3, 0},
		{"messages of which one fills an entry", 1, 4, 2 << 20},
		{"many entries", 3, 5000, 1000},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := manifest
			m.First, m.Last = c.first, c.last
			file, want := made(t, m, c.size)
			var got said
			read, err := backup.Read(bytes.NewReader(file), got.contents())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			m.Format = backup.Format
			if diff := cmp.Diff(m, read); diff != "" {
				t.Error(diff)
			}
			names := tarNames(t, file)
			if names[0] != "manifest.json" || names[len(names)-1] != "sha256" {
				t.Errorf("tar sees %q", names)
			}
		})
	}
}

// tarNames is what tar says is in an archive, read to its end.
func tarNames(t *testing.T, file []byte) (names []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(file)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestTheWriterWantsTheWholeLog(t *testing.T) {
	for _, c := range []struct {
		what      string
		positions []uint64
		says      string
	}{
		{"a hole", []uint64{7, 9}, "goes on at 9 where 8"},
		{"the end is missing", []uint64{7, 8}, "ends before 9, at 8"},
		{"another beginning", []uint64{8}, "goes on at 8 where 7"},
		{"more than there is", []uint64{7, 8, 9, 10}, "goes on at 10"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w, err := backup.NewWriter(io.Discard, manifest)
			for _, p := range c.positions {
				err = errors.Join(err, w.Message(p, nil))
			}
			if err = errors.Join(err, w.Close()); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("said %v", err)
			}
		})
	}
}

// known says whether an error is one of those that Read promises for a bad file.
func known(err error) bool {
	for _, e := range []error{backup.ErrForeign, backup.ErrNewer, backup.ErrShort, backup.ErrDamaged} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func TestEveryTruncationIsSeen(t *testing.T) {
	file, _ := made(t, manifest, 600)
	for n := range len(file) {
		_, err := backup.Read(bytes.NewReader(file[:n]), backup.Contents{})
		if !errors.Is(err, backup.ErrShort) && (n >= 512 || !errors.Is(err, backup.ErrForeign)) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(file), err)
		}
	}
}

func TestEveryFlippedBitIsSeen(t *testing.T) {
	file, _ := made(t, manifest, 100)
	for at := range file {
		for bit := range 8 {
			file[at] ^= 1 << bit
			_, err := backup.Read(bytes.NewReader(file), backup.Contents{})
			if !known(err) {
				t.Fatalf("bit %d of byte %d of %d: %v", bit, at, len(file), err)
			}
			file[at] ^= 1 << bit
		}
	}
}

func TestWhatIsNoBackup(t *testing.T) {
	file, _ := made(t, manifest, 10)
	other, _ := made(t, manifest, 11)
	newer := archive(t, "manifest.json", `{"format": 2, "anything": [1]}`)
	for _, c := range []struct {
		what string
		file []byte
		want error
	}{
		{"nothing", nil, backup.ErrForeign},
		{"a text", []byte(strings.Repeat("Dear backup,\n", 100)), backup.ErrForeign},
		{"an archive of something else", archive(t, "etc/passwd", "root"), backup.ErrForeign},
		{"an archive with another manifest", archive(t, "manifest.json", `{"version": "3"}`), backup.ErrForeign},
		{"zeros", make([]byte, 10_000), backup.ErrForeign},
		{"one of a newer program", newer, backup.ErrNewer},
		{"one with something behind it", append(bytes.Clone(file), 0), backup.ErrDamaged},
		{"two", append(bytes.Clone(file), other...), backup.ErrDamaged},
		{"one with the end of another", append(bytes.Clone(file[:len(file)-1024]), other[len(file)-1024:]...), nil},
		{"a manifest that lacks the log's name", archive(t, "manifest.json", `{"format": 1, "first_position": 1, "state_hash": "AQ=="}`), backup.ErrDamaged},
		{"a path that leads out of the directory", archive(t, "manifest.json", whole, "files/../../etc/passwd", "root"), backup.ErrDamaged},
		{"a file that no backup has", archive(t, "manifest.json", whole, "files/fold.db", "x"), backup.ErrDamaged},
		{"a file twice", archive(t, "manifest.json", whole, "files/ca.pem", "x", "files/ca.pem", "y"), backup.ErrDamaged},
		{"entries out of order", archive(t, "manifest.json", whole, "log/00000001", "x"), backup.ErrDamaged},
		{"a record that is longer than its entry", archive(t, "manifest.json", whole, "log/00000000", "\xff\xff\xff\xff1234"), backup.ErrDamaged},
		{"a sum without a log", archive(t, "manifest.json", whole, "sha256", "x"), backup.ErrDamaged},
	} {
		t.Run(c.what, func(t *testing.T) {
			m, err := backup.Read(bytes.NewReader(c.file), backup.Contents{})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, %+v; want %v", err, m, c.want)
			}
		})
	}
}

const whole = `{"format": 1, "log_id": "L", "first_position": 1, "last_position": 1, "state_hash": "AQ=="}`

// archive is a tar archive of names and texts in turns.
func archive(t *testing.T, parts ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(parts); i += 2 {
		err := w.WriteHeader(&tar.Header{Name: parts[i], Size: int64(len(parts[i+1])), Mode: 0o600, Format: tar.FormatUSTAR})
		if _, writing := io.WriteString(w, parts[i+1]); errors.Join(err, writing) != nil {
			t.Fatal(err, writing)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzRead: whatever the bytes are, what is read without an error is what a writer makes of it again.
func FuzzRead(f *testing.F) {
	file, _ := made(f, manifest, 50)
	f.Add(file)
	f.Add(file[:1500])
	f.Fuzz(func(t *testing.T, data []byte) {
		var holds said
		m, err := backup.Read(bytes.NewReader(data), holds.contents())
		switch {
		case err != nil && !known(err):
			t.Fatalf("an error of no kind: %v", err)
		case err != nil:
			return
		}
		if m.Last+1-m.First != uint64(strings.Count(strings.Join(holds, "\n"), "message ")) {
			t.Errorf("%+v has %q", m, holds)
		}
	})
}
