package lab

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/profile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// writeBigProfile writes a profile that is CloudFront's with authorities of its own, as many as a profile's file
// has room for: the last one is the only one that matters.
func (w *world) writeBigProfile() error {
	shipped, err := os.ReadFile("../../pkg/profile/cloudfront.yaml")
	if err != nil {
		return err
	}
	text := strings.Replace(string(shipped), "name: cloudfront\n", "name: ours\n", 1)
	before, after, _ := strings.Cut(text, "\nsources:\n")
	before += "\nroots: |\n"
	after = inYAML(w.nobody) + "sources:\n  roots: { document: the lab, date: 2026-11-01 }\n" + after
	filler := inYAML(w.issuer)
	filler = strings.Repeat(filler, (profile.MaxSize-len(before)-len(after))/len(filler))
	return os.WriteFile(filepath.Join(w.dir, "big-profile.yaml"), []byte(before+filler+after), 0o644)
}

// inYAML is an authority's certificate in PEM, as lines of a block scalar.
func inYAML(ca *probetest.CA) string {
	lines := strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Root.Raw})))
	return "  " + strings.ReplaceAll(lines, "\n", "\n  ") + "\n"
}

// profileOf says whether a measurement has a profile of at least so many bytes, which its jobs had.
func profileOf(least int) func(*pb.Measurement) []string {
	return func(m *pb.Measurement) []string {
		if size := proto.Size(m.GetSpec().GetOrigin().GetProfile()); size < least {
			return []string{fmt.Sprintf("the profile has %d bytes, less than %d", size, least)}
		}
		return nil
	}
}
