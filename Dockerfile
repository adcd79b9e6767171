# syntax=docker/dockerfile:1
FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/tidegate ./cmd/tidegate && mkdir /out/data

# Alpine, not scratch: its wget is the health check.
FROM alpine:3.22
COPY --from=build /out/tidegate /usr/local/bin/tidegate
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
EXPOSE 8080
ENV TIDEGATE_DATA=/data
VOLUME /data
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["run"]
