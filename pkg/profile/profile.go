// Package profile holds what is known of clients of origins: a file of YAML for each CDN, every fact with
// its source. docs/profiles.md says how such a file is read, and how to write one.
package profile

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/profile/strictyaml"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Default is the profile that origins are judged by unless another is asked for.
const Default = "cloudfront"

// MaxSize bounds a profile, in bytes: of its file, and of the message.
const MaxSize = 64 << 10

//go:embed *.yaml
var files embed.FS

// shipped holds the profiles that come with the program, by name.
var shipped = sync.OnceValues(func() (map[string]*pb.Profile, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	profiles := map[string]*pb.Profile{}
	for _, e := range entries {
		data, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, err
		}
		if profiles[strings.TrimSuffix(e.Name(), path.Ext(e.Name()))], err = Parse(data, e.Name()); err != nil {
			return nil, err
		}
	}
	return profiles, nil
})

// Names are the names of the profiles that come with the program, sorted.
func Names() (names []string) {
	entries, _ := files.ReadDir(".") // of an embedded directory: it is there
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), path.Ext(e.Name())))
	}
	slices.Sort(names)
	return names
}

// Load returns the profile of a name that comes with the program. The error names those that do.
func Load(name string) (*pb.Profile, error) {
	profiles, err := shipped()
	if err != nil {
		return nil, err
	}
	p, ok := profiles[name]
	if !ok {
		return nil, fmt.Errorf("there is no profile %q; known are %s", name, strings.Join(Names(), ", "))
	}
	return proto.CloneOf(p), nil
}

// Parse reads the file of a profile. It is strict: what is unknown, wrong or without a source is an error
// that begins with FILENAME:LINE:COLUMN.
func Parse(data []byte, filename string) (*pb.Profile, error) {
	p := &pb.Profile{}
	if err := (strictyaml.File{Path: filename, Max: MaxSize, Rules: checker{}}).Unmarshal(data, p); err != nil {
		return nil, err
	}
	if p.GetName() == "" {
		return nil, fmt.Errorf("%s: is empty, or holds no profile", filename)
	}
	return p, nil
}
