package question

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/profile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// OriginFlags are the flags of origin. The zero value is none of them.
type OriginFlags struct {
	// Profile is the name of a profile that is shipped, or a path to a file of one's own.
	Profile string
	// Host is the Host that is forwarded.
	Host string
	// SSLProtocols are versions, separated by commas, as CloudFront's origin settings have them.
	SSLProtocols string
}

// Origin reads the words after "origin", and its flags.
func Origin(args []string, f OriginFlags) (*Question, error) {
	w, err := splitHost("origin", "URL, such as https://origin.example.com/", args)
	if err != nil {
		return nil, err
	}
	spec := &pb.OriginSpec{}
	if spec.Url, err = location(w.plain[0]); err != nil {
		return nil, err
	}
	if f.Host != "" {
		if spec.HostHeader, err = authority(f.Host); err != nil {
			return nil, fmt.Errorf("--host-header: %w", err)
		}
	}
	if spec.Versions, err = tlsVersions("--ssl-protocols", f.SSLProtocols); err != nil {
		return nil, err
	}
	if len(spec.GetVersions()) > 0 && strings.HasPrefix(spec.GetUrl(), "http:") {
		return nil, errors.New("--ssl-protocols is for https; the URL says http")
	}
	if spec.Profile, err = readProfile(f.Profile); err != nil {
		return nil, err
	}
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Origin{Origin: spec}}, From: w.from}, nil
}

// readProfile reads --profile: nil for none, a name that the coordinator looks up, or a file. What a name has
// not, a slash or a dot, makes it a path.
func readProfile(s string) (*pb.Profile, error) {
	switch {
	case s == "":
		return nil, nil //nolint:nilnil // none is asked for, and that is no error
	case slices.Contains(profile.Names(), s):
		return &pb.Profile{Name: s}, nil
	}
	file, err := os.Open(s)
	shipped := strings.Join(profile.Names(), ", ")
	switch {
	case errors.Is(err, os.ErrNotExist) && !strings.ContainsAny(s, "/.\\"):
		return nil, fmt.Errorf("--profile %s is neither shipped (%s) nor a file here; give one of these, or the path of a file", quote(s), shipped)
	case err != nil:
		return nil, fmt.Errorf("--profile %s cannot be read as a file: %w; shipped are %s", quote(s), reason(err), shipped)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, profile.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("--profile %s cannot be read: %w", quote(s), reason(err))
	}
	p, err := profile.Parse(data, s)
	if err != nil {
		return nil, fmt.Errorf("--profile %w", err)
	}
	return p, nil
}

// reason is why a file cannot be read, without the path, which is said already.
func reason(err error) error {
	var at *os.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// tlsVersions reads versions with commas between them, each once.
func tlsVersions(flag, s string) (versions []string, err error) {
	all, err := list(flag, s, ",")
	for _, v := range all {
		canonical, err := tlsVersion(flag, v)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(versions, canonical) {
			versions = append(versions, canonical)
		}
	}
	return versions, err
}
