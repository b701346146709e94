"""Tell illustrated stories in the browser: `python app.py`, then open the address it prints."""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path


EMBEDDED = "embedded"
MAX_UPLOAD = "10mb"
# Between two looks for events. Gradio looks a thousand times a second, and each look halts the painter.
EVENT_SECONDS = 0.01


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--model",
        default=os.environ.get("SAGANETS_MODEL", EMBEDDED),
        metavar="FOLDER",
        help="a pipeline saved by save_pretrained, a Hub id, or 'embedded' for the small model that comes along",
    )
    parser.add_argument(
        "--lora",
        default=os.environ.get("SAGANETS_LORA"),
        metavar="FILE",
        help="an adapter (.safetensors) to use instead of the model's own",
    )
    parser.add_argument("--host", default=None, help="address to listen on; none is 127.0.0.1, 0.0.0.0 is everywhere")
    parser.add_argument("--port", type=int, default=None, help="port to listen on; none is the first free from 7860")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link (this needs the network)")
    return parser.parse_args(argv)


def set_environment(model: str) -> None:
    """No analytics, and no word to the Hub for a model that is already on this disk.

    Gradio and huggingface_hub read these while they are imported, so this comes before both.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if model == EMBEDDED or Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    set_environment(args.model)
    if find_spec("spaces"):
        import spaces  # noqa: F401  before torch, on a GPU that is lent call by call

    import torch

    from sagan_pipeline import SAGANetsPipeline, fastest_dtype
    from sagan_pipeline.loading import EMBEDDED_ADAPTER
    from studio import build_demo, in_painter, look

    def load() -> SAGANetsPipeline:
        if args.model == EMBEDDED:
            pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
        elif torch.cuda.is_available():
            pipe = SAGANetsPipeline.from_pretrained(args.model, dtype=torch.float16).to("cuda")
        else:
            pipe = SAGANetsPipeline.from_pretrained(args.model)
        if args.lora is not None:
            pipe.load_adapter(args.lora)
        return pipe

    own = EMBEDDED_ADAPTER.stem if args.model == EMBEDDED else "own"
    if args.lora is not None:
        own = Path(args.lora).stem
    demo = build_demo(in_painter(load), own=own)
    demo.queue(max_size=64)
    demo._queue.sleep_when_free = EVENT_SECONDS
    demo.launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        footer_links=["api", "settings"],
        max_file_size=MAX_UPLOAD,
        mcp_server=True,
        **look(),
    )


if __name__ == "__main__":
    main()
