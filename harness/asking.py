"""What a step asks of the store now and then, such as whether it is to stop."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from harness.store import Store
from harness.url import Url


class Asked:
    """The newest answer of `question`, which a thread asks an object store: a step does not wait for it, and a store
    that is away for a while answers nothing."""

    def __init__(self, question: Callable[[], bool]) -> None:
        self.question, self.pool = question, ThreadPoolExecutor(1)
        self.answer: Future[bool] | None = None

    def __call__(self) -> bool:
        before = self.answer
        if before is None or before.done():
            self.answer = self.pool.submit(self.question)
        return before is not None and before.done() and before.exception() is None and before.result()


def asking(store: Store, question: Callable[[], bool]) -> Callable[[], bool]:
    """`question` for a step to ask: at once of a directory, beside the step of an object store."""
    return Asked(question) if isinstance(store.root, Url) else question
