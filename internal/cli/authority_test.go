package cli_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// pinOf is a pin that begins with a text.
func pinOf(beginning string) string { return beginning + strings.Repeat("0", 64-len(beginning)) }

// rotating is a coordinator with authorities, the first of which is in use.
type rotating struct {
	operator

	list   []*pb.Authority
	hang   bool // agents hang on all that are not in use
	forced bool
}

func (r *rotating) add(beginning string) *pb.Authority {
	a := &pb.Authority{
		Pin: pinOf(beginning), Certificate: "-----BEGIN " + beginning + "\n", InUse: len(r.list) == 0,
		ExpireTime: timestamppb.New(time.Date(2036, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
	r.list = append(r.list, a)
	return a
}

func (r *rotating) ListAuthorities(context.Context, *pb.ListAuthoritiesRequest) (*pb.ListAuthoritiesResponse, error) {
	return &pb.ListAuthoritiesResponse{Authorities: r.list}, nil
}

func (r *rotating) AddAuthority(context.Context, *pb.AddAuthorityRequest) (*pb.AddAuthorityResponse, error) {
	return &pb.AddAuthorityResponse{Authority: r.add("ffffff")}, nil
}

func (r *rotating) UseAuthority(_ context.Context, req *pb.UseAuthorityRequest) (*pb.UseAuthorityResponse, error) {
	for _, a := range r.list {
		a.InUse = a.GetPin() == req.GetPin()
	}
	return &pb.UseAuthorityResponse{}, nil
}

func (r *rotating) DropAuthority(_ context.Context, req *pb.DropAuthorityRequest) (*pb.DropAuthorityResponse, error) {
	if r.hang && !req.GetForce() {
		return nil, status.Error(codes.FailedPrecondition, "2 agents have no certificate but one that it signed: a, b")
	}
	r.forced = req.GetForce()
	r.list = slices.DeleteFunc(r.list, func(a *pb.Authority) bool { return a.GetPin() == req.GetPin() })
	return &pb.DropAuthorityResponse{Authorities: r.list}, nil
}

func TestAuthority(t *testing.T) {
	r := &rotating{}
	r.add("81d0e2")
	w := newWorld(t).at(serveOperator(t, r))
	for _, c := range []struct {
		words     string
		code      int
		out, says string // the whole of stdout; a part of stderr
	}{
		{"add", cli.ExitOK, pinOf("ffffff") + "\n", "elsewhere authority use ffffff000000"},
		{"list", cli.ExitOK, "PIN           SIGNS  EXPIRES\n81d0e2000000  yes    2036-01-02T03:04:05Z\nffffff000000  no     2036-01-02T03:04:05Z\n", ""},
		{"list --pem", cli.ExitOK, "-----BEGIN 81d0e2\n-----BEGIN ffffff\n", ""},
		{"list --format csv", cli.ExitOK, fmt.Sprintf("pin,signs,expires\n%s,yes,2036-01-02T03:04:05Z\n%s,no,2036-01-02T03:04:05Z\n", pinOf("81d0e2"), pinOf("ffffff")), ""},
		{"use ffffff", cli.ExitOK, "", "signs from now on"},
		{"drop ffff", cli.ExitUsage, "", "first 6 characters"},
		{"drop ffffff11", cli.ExitUsage, "", "no authority"},
		{"drop Ffffff", cli.ExitUsage, "", "takes a pin"},
		{"drop", cli.ExitUsage, "", "takes a pin"},
		{"drop 81d0e2 ffffff", cli.ExitUsage, "", "takes a pin"},
		{"replace", cli.ExitUsage, "", "not a command"},
	} {
		got := w.run(t, append([]string{"authority"}, strings.Fields(c.words)...)...)
		if got.code != c.code || got.out != c.out || !strings.Contains(got.err, c.says) {
			t.Errorf("%s: exit %d, %q, %q; want %d, %q, %q", c.words, got.code, got.out, got.err, c.code, c.out, c.says)
		}
	}
	r.hang = true
	if got := w.run(t, "authority", "drop", "81d0e2"); got.code != cli.ExitNetwork || !strings.Contains(got.err, "2 agents") {
		t.Errorf("while agents depend on it: %+v", got)
	}
	if got := w.run(t, "authority", "drop", "81d0e2", "--force"); got.code != cli.ExitOK || !r.forced || len(r.list) != 1 {
		t.Errorf("by force: %+v, %v", got, r.list)
	}
	r.add("ffffff1")
	if got := w.run(t, "authority", "use", "ffffff"); got.code != cli.ExitUsage || !strings.Contains(got.err, "2 authorities") {
		t.Errorf("a beginning of two pins: %+v", got)
	}
	if got := w.run(t, "authority", "list", "-J"); got.code != cli.ExitOK || !strings.Contains(got.out, `"authorities"`) {
		t.Errorf("in JSON: %+v", got)
	}
}
