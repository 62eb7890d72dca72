package question

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// OriginFlags are the flags of origin but for the profile. The zero value is none of them.
type OriginFlags struct {
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
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Origin{Origin: spec}}, From: w.from}, nil
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
