"""`diffsim browse`: the index as a web page."""

from pathlib import Path

import click

from .options import device_option, index_option


@click.command()
@index_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Of 127.0.0.1; 0 picks a free one.",
)
@click.option("--no-open", is_flag=True, help="Only print the address; do not open a browser.")
@click.option(
    "--fetch",
    is_flag=True,
    help="Fetch pictures from public addresses of the web that are pasted or dragged onto the page.",
)
@click.option(
    "--keep-token", is_flag=True, help="Use the same token at each such start, for bookmarks to go on working."
)
@click.option("--new-token", is_flag=True, help="The same, with a new token: the kept one opens nothing any more.")
@device_option
def browse(
    index_path: Path, port: int, no_open: bool, fetch: bool, keep_token: bool, new_token: bool, device: str
) -> None:
    """Open the index as a page in the browser: drop a picture, see its neighbours, explore from there.

    The page is served on this machine only, and only the printed address, which contains a secret token, opens it.
    Ctrl-C stops the server.
    """
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as problem:
        raise click.ClickException(
            "The page needs a few more packages; install them with: pip install 'diffsim-search[web]'."
        ) from problem
    from ..web.kept_token import kept_token
    from ..web.server import serve

    token = kept_token(renew=new_token) if keep_token or new_token else None
    serve(
        index_path,
        port,
        device=device,
        open_browser=not no_open,
        announce=click.echo,
        fetch=fetch,
        token=token,
    )
