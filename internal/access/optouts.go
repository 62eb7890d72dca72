package access

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxOptOuts bounds the file of those who opted out, in bytes.
const maxOptOuts = 64 << 10

// OptOuts are those who do not want to be looked at from a network. Its zero value is nobody.
type OptOuts struct {
	// Entries are what the file has, as agents are told.
	Entries []string
	parsed  probe.OptOut
}

// OpenOptOuts reads the file of those who opted out: a name, an address or a network a line, and what follows a # is for
// people. An error names the line.
func OpenOptOuts(path string) (*file.Watched[*OptOuts], error) {
	return file.Watch(path, maxOptOuts, func(data []byte, _ *OptOuts) (*OptOuts, error) { return parseOptOuts(path, data) })
}

func parseOptOuts(path string, data []byte) (*OptOuts, error) {
	o := &OptOuts{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		if _, err := probe.ParseOptOut([]string{text}); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		o.Entries = append(o.Entries, text)
	}
	var err error
	if err = lines.Err(); err == nil {
		o.parsed, err = probe.ParseOptOut(o.Entries)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// Check returns nil if all that a question names may be looked at, or an error that says which does not want it.
func (o *OptOuts) Check(spec *pb.Spec) error {
	for _, host := range Hosts(spec) {
		if err := o.parsed.Check(host); err != nil {
			return err
		}
	}
	return nil
}
