// Package fetch downloads files by http(s), and by IPFS addresses through gateways.
package fetch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	// The authorities that browsers trust: an image from scratch has none.
	_ "golang.org/x/crypto/x509roots/fallback"

	"sluice/enclaves/internal/worker"
)

// Gateways are asked in turn for an IPFS address where IPFS_GATEWAYS names none.
var Gateways = []string{"https://ipfs-gateway.arbitrum-mainnet.iex.ec", "https://ipfs.io"}

const (
	// idleTimeout is for a server to begin its answer.
	idleTimeout = 60 * time.Second
	tries       = 3
	firstPause  = time.Second
)

var client = http.Client{Transport: &http.Transport{
	ResponseHeaderTimeout: idleTimeout, TLSHandshakeTimeout: idleTimeout, DisableCompression: true,
}}

// Addresses are the URLs under which a file may lie: itself, or at each gateway for an IPFS address.
func Addresses(address string, gateways []string) []string {
	path, isIPFS := strings.CutPrefix(address, "/ipfs/")
	if !isIPFS {
		return []string{address}
	}
	var found []string
	for _, gateway := range gateways {
		found = append(found, strings.TrimRight(gateway, "/")+"/ipfs/"+path)
	}
	return found
}

// errRefused says that a server has no such file for us: it is not asked again.
var errRefused = errors.New("refused")

// To hands the body of the first address that has it to take, which is called again for each new try. What take
// returns ends it unless the body broke off.
func To(addresses []string, take func(io.Reader) error) error {
	var last error
	pause := firstPause
	for try := range tries {
		if try > 0 {
			time.Sleep(pause)
			pause *= 2
		}
		refused := 0
		for _, address := range addresses {
			body, err := open(address)
			if err != nil {
				last = err
				if errors.Is(err, errRefused) {
					refused++
				}
				continue
			}
			source := &watched{source: body}
			err = take(source)
			body.Close()
			if err == nil || source.broke == nil {
				return err
			}
			last = source.broke
		}
		if refused == len(addresses) {
			break
		}
	}
	return last
}

func open(address string) (io.ReadCloser, error) {
	answer, err := worker.Patiently(func() (*http.Response, error) { return client.Get(address) })
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	answer.Body.Close()
	err = fmt.Errorf("HTTP %d", answer.StatusCode)
	if answer.StatusCode/100 == 4 && answer.StatusCode != http.StatusTooManyRequests {
		err = fmt.Errorf("%w: %w", errRefused, err)
	}
	return nil, err
}

// watched notes whether it was the download that failed, and not who reads it.
type watched struct {
	source io.Reader
	broke  error
}

func (w *watched) Read(buffer []byte) (int, error) {
	count, err := w.source.Read(buffer)
	if err != nil && err != io.EOF {
		w.broke = err
	}
	return count, err
}
