package receipt

import "net/http"

func pages() http.Handler { return http.NotFoundHandler() }
