package render

import (
	"bytes"
	"testing"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 9_950: "10 kB", 123_456: "123 kB", 999_600: "1.0 MB", 5_000_000_000: "5.0 GB",
		1 << 62: "4611686 TB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestProgressIsForTerminalsAlone(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out, func(string) string { return "" })
	p.Show("backup", 1, 2)
	p.End()
	if out.Len() > 0 {
		t.Errorf("a pipe was told %q", &out)
	}
	p = &Progress{out: &out}
	p.Show("backup", 1_500, 20_000_000)
	p.Show("backup", 1_600, 20_000_000) // too early for another look
	p.End()
	if got := out.String(); got != "\r\x1b[Kbackup: 1.5 kB of about 20 MB\r\x1b[K" {
		t.Errorf("a terminal was told %q", got)
	}
}
