package probe

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// TestConn: what Connect returns behaves as every net.Conn does, with its deadlines and its errors.
func TestConn(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (here, there net.Conn, stop func(), err error) {
		l, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		here, ev, err := Connect(t.Context(), l.Addr().(*net.TCPAddr).AddrPort(), ConnectOptions{})
		if err != nil {
			return nil, nil, nil, err
		}
		if there, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		if got := here.LocalAddr().String(); got != ev.GetLocalAddress() || got != there.RemoteAddr().String() {
			t.Errorf("from %s, by the evidence %s, seen as %s", got, ev.GetLocalAddress(), there.RemoteAddr())
		}
		return here, there, func() { _, _ = here.Close(), there.Close() }, nil
	})
}
