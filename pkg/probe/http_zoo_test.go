package probe

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestZooHTTP(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"127.0.0.2"}}, true)
	config := serverConfig(cert)
	config.NextProtos = []string{"h2"}
	all(t, func(a probetest.HTTPAnimal) string { return a.Name }, probetest.HTTPAnimals(), func(t *testing.T, a probetest.HTTPAnimal) func(*testing.T) {
		env := newEnv(t, nil)
		env.Roots = roots
		var tlsConfig *tls.Config
		if a.Scheme() == "https" {
			tlsConfig = config
		}
		host := must[*probetest.Host](t)(probetest.ListenHTTPFault(at("127.0.0.2"), tlsConfig, a.Fault))
		r := run(t, env, httpSpec(&pb.HTTPSpec{Url: a.Scheme() + "://" + host.Addr().String() + "/", MaxRedirects: 5}))
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			e := s.GetEvidence()
			if s.GetFailure() != a.Want || !strings.Contains(e.GetText(), a.Word) {
				t.Errorf("%s (%s), want %s (%s)", Short(s.GetFailure()), e.GetText(), Short(a.Want), a.Word)
			}
			if took := s.GetDuration().AsDuration(); took > 2*httpTimeout+slack {
				t.Errorf("took %v", took)
			}
			if h := e.GetHttp(); h.GetBodySize() > maxBody || h.GetBodyCut() != (a.Fault == probetest.EndlessBody || a.Fault == probetest.EndlessBody2 || a.Fault == probetest.GzipBomb) {
				t.Errorf("a body of %d bytes, cut: %v", h.GetBodySize(), h.GetBodyCut())
			}
			checkTame(t, r)
		}
	})
}
