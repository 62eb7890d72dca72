package aggregate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestServes(t *testing.T) {
	w := originWorld(strict()).
		in("ap", then(visited(ip1, hands{}, 200), blocked(v61, refused))).
		in("eu", visited(ip1, hands{wrong: []pb.Failure{expired}}, 200)).
		in("sa", tcp(ip1, timeout), failing4()).
		in("us", visited(ip1, hands{version: "TLS 1.3", suite: suite13}, 404))
	want := []Service{
		{Region: "ap", Serves: true, Words: "Strict CDN can serve it: 200 OK, TLS 1.2, certificate until 2027-02-19 12:00 UTC"},
		{Region: "eu", Fails: true, Words: "Strict CDN answers 502: regional_certificate"},
		{Region: "sa", Words: "nothing was judged"},
		{Region: "us", Serves: true, Words: "Strict CDN can serve it: 404 Not Found, TLS 1.2, certificate until 2027-02-19 12:00 UTC"},
	}
	if diff := cmp.Diff(want, Serves(w.m, w.results, w.judge())); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if got := Serves(tlsWorld().m, nil, &pb.Verdict{}); got != nil {
		t.Errorf("a check that is judged for nobody has %v", got)
	}
}
